"""`reshelve new source`: a first mapping file, written beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reshelve.errors import ConfigurationError, DataError
from reshelve.files import open_to_others
from reshelve.landing.draft import MappingDraft, summary
from reshelve.landing.look import look
from reshelve.names import is_ranker
from reshelve.raw.formats import format_names
from reshelve.settings import settings


def new_source(
    name: str, files: str, catalogue: str | None = None, file_format: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Write the mapping of source `name` from a look at `files`; returns the file, what was seen, and what was not understood.

    Raises ConfigurationError where the name is none, its file is there (without `force`) or no raw file is; DataError
    where the raw files cannot be read, or where no column looks like a time, or none of the product list like ids or
    titles: then an outline of the file is written first, with what was seen.
    """
    path = place_for(settings().clickstreams_dir, name, force)
    known = format_names()
    if file_format is not None and file_format not in known:
        raise ConfigurationError(f"--format {file_format}: expected {', '.join(known)}")
    events = look(files, file_format)
    draft = MappingDraft(name, events, look(catalogue) if catalogue else None)
    write(path, draft.text())
    if problem := draft.problem:
        raise DataError(
            problem.headline, f"{path} was written with what was seen: finish it. {problem.detail}"
        )
    return {
        "file": str(path),
        "files": len(events.files),
        "rows_looked_at": events.rows,
        "format": events.file_format,
        **summary(draft),
    }


def place_for(directory: Path, name: str, force: bool) -> Path:
    """Where the file of a new name goes. Raises ConfigurationError where the name is none, or the file is there."""
    if not is_ranker(name):
        raise ConfigurationError(
            f"{name!r} is not a valid name",
            "expected at most 41 lower-case letters, digits and _, starting with a letter",
        )
    path = directory / f"{name}.yaml"
    if path.exists() and not force:
        raise ConfigurationError(f"{path} already exists", "nothing was written; --force overwrites it")
    return path


def write(path: Path, text: str) -> None:
    """Write a file of the project, which other users may read (a container's), whole or not at all."""
    made = path.with_name(f".{path.name}.new")
    made.write_text(text, encoding="utf-8")
    open_to_others(made)
    made.replace(path)
