"""The base model that a night began with, kept in the home: who edits or replaces it changes no night that goes on."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from reshelve.config.bases import is_directory
from reshelve.errors import MisfitError, TryAgainError
from reshelve.kept import forget_unused
from reshelve.model.base import BaseModel, described, resolve_base
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore


def keep_base(uri: str, base: BaseModel) -> None:
    """Keep a base under its revision, where it is not yet: the copy of a directory, or a name for what was fetched from S3.

    The hub's are kept by its own cache; a package is no file that people edit.
    """
    homes = settings().home / "base"
    kept = homes / base.revision
    if kept.is_dir():
        os.utime(kept)
        return
    homes.mkdir(parents=True, exist_ok=True)
    forget_unused(homes)
    if uri.startswith("s3://"):
        kept.unlink(missing_ok=True)  # what it named was deleted
        with suppress(FileExistsError):  # another night named it meanwhile
            kept.symlink_to(base.path.name)
    elif is_directory(uri):
        _copy(base, kept)


def recorded_base(uri: str, record: dict[str, Any], store: ObjectStore | None) -> BaseModel:
    """The base that a night began with, as `BaseModel.record` says, also where `uri` names other files by now.

    Raises ConfigurationError where they are kept nowhere.
    """
    try:
        found = resolve_base(uri, store)
        if changed := _other_file(found, record):
            raise MisfitError("model.base", f"{uri}: {changed} is not the file that the night began with")
    except MisfitError:
        kept = _kept(uri, record, store)
        if kept is None:
            raise
        return kept
    return found


def _kept(uri: str, record: dict[str, Any], store: ObjectStore | None) -> BaseModel | None:
    revision = str(record.get("revision") or "unknown")
    home = settings().home / "base" / revision
    if home.is_dir():
        os.utime(home)
        kept = described(home, record["name"], revision)
    elif uri.startswith(("package:", "s3://")) or is_directory(uri):
        return None
    else:
        kept = resolve_base(f"{record['name']}@{revision}", store)
    return None if _other_file(kept, record) else kept


def _other_file(base: BaseModel, record: dict[str, Any]) -> str | None:
    """The first file of the record that the base has otherwise, or not at all."""
    files = record.get("files", {})
    return next((name for name, digest in files.items() if base.files.get(name) != digest), None)


def _copy(base: BaseModel, kept: Path) -> None:
    partial = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
    partial.mkdir()
    for name in base.files:
        shutil.copyfile(base.path / name, partial / name)
    try:
        if described(partial, base.name, None).files != base.files:
            raise TryAgainError(f"model.base: {base.name} changes right now", "a retry takes it whole")
        partial.rename(kept)
    except BaseException:
        shutil.rmtree(partial)
        if not kept.is_dir():  # else another night kept it meanwhile
            raise
