"""A directory of forms: one YAML file for each name. The names become ids of DAGs and tasks, folders and keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reshelve.errors import ConfigurationError
from reshelve.names import is_ranker


def names(directory: Path) -> list[str]:
    """The names that have a file, sorted; a file that is called otherwise has none."""
    return sorted(path.stem for path in _files(directory) if not _problem(path))


def misnamed(directory: Path) -> list[ConfigurationError]:
    """What is wrong with the files that `names` leaves out. An editor's hidden files are nobody's mistake."""
    wrong = [(path, _problem(path)) for path in _files(directory)]
    # In ASCII: a name need not be text at all, and an error has to be stored.
    return [
        ConfigurationError(f"{ascii(str(path))[1:-1]}:1: {problem}") for path, problem in wrong if problem
    ]


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.glob("*.yaml")) if not path.name.startswith("."))


def _problem(path: Path) -> str:
    if not is_ranker(path.stem):
        return "expected a name of at most 41 lower-case letters, digits and _, starting with a letter, then .yaml"
    return "" if path.is_file() else "expected a file"
