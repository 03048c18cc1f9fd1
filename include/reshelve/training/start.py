"""Where a night's training starts: from the champion's float weights where they fit, else from the base.

Decided once for each run and written to `runs/<run>/start.json` before anything is trained: a retry, and every trial of the
search, starts from the same weights, whatever has been released meanwhile.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from reshelve.errors import DataError
from reshelve.lineage import Run
from reshelve.logs import logger
from reshelve.memory.columns import feature_columns
from reshelve.store.deployments import read_pointer
from reshelve.store.objects import PreconditionFailedError
from reshelve.store.versions import partition_of, read_manifest
from reshelve.training.base import BaseModel as PretrainedBase
from reshelve.training.form import ModelForm, base_architecture

_WEIGHTS, _FORM, _CATALOGUE = "train/model.safetensors", "train/model.json", "examples/catalogue.parquet"


class Start(BaseModel):
    """The decision. `version` and `run` are the champion's, null for the base; `files` maps keys to sha256."""

    model_config = ConfigDict(frozen=True)

    version: int | None = None
    run: str | None = None
    reason: str
    files: dict[str, str] = {}

    def record(self) -> dict[str, Any]:
        """What the train stage's result says of it."""
        return {"from": "base" if self.version is None else "champion", **self.model_dump(exclude={"files"})}


class _UnfitError(Exception):
    """Why this champion's weights are no start for this run."""


def choose_start(run: Run, base: PretrainedBase) -> Start:
    """The run's start, decided now if it has not been. Raises TryAgainError where the store is away."""
    if not run.ranker.training.warm_start:
        return Start(reason="training.warm_start is false")
    key = f"{run.prefix}/start.json"
    found = run.store.get_json(key)
    if found is None:
        examples = run.stage("examples").result() or {}
        first = (examples.get("validation_partitions") or [""])[0]
        try:
            decided = _fetched(run, _champion(run, base, first))
        except (_UnfitError, DataError) as error:
            decided = Start(reason=str(error).partition("\n")[0])
        try:
            run.store.put_json(key, decided.model_dump(mode="json"), if_absent=True)
            logger(stage="train", run=run.id).info(
                "training starts", version=decided.version or "base", reason=decided.reason
            )
        except PreconditionFailedError:
            logger(stage="train", run=run.id).info("another process was first to decide the start")
        found = run.store.get_json(key)
    return Start.model_validate(found)


def expected_start(run: Run, base: PretrainedBase, validates_from: str | None) -> Start:
    """What `choose_start` would decide as things are; nothing is written or fetched.

    `validates_from`: the first day of validation, None where it is not known yet.
    """
    if not run.ranker.training.warm_start:
        return Start(reason="training.warm_start is false")
    found = run.store.get_json(f"{run.prefix}/start.json")
    if found is not None:
        return Start.model_validate(found)
    try:
        return _champion(run, base, validates_from)
    except (_UnfitError, DataError) as error:
        return Start(reason=str(error).partition("\n")[0])


def start_files(run: Run, start: Start) -> Path | None:
    """The directory with the champion's model.safetensors and catalogue.parquet; None for the base.

    Raises DataError where they are gone or have changed since they were chosen.
    """
    if start.version is None or start.run is None:
        return None
    with run.stage("start").lock():  # trials side by side must not fetch the same file at once
        directory = run.stage("start").directory
        for key, digest in start.files.items():
            path = directory / Path(key).name
            if path.is_file() and _sha256(path) == digest:
                continue
            if not run.store.exists(f"runs/{start.run}/{key}"):
                raise DataError(
                    f"{run.id}: the weights of version {start.version}, from which this run started, are gone",
                    "expected them below runs/ until the run is done; with training.warm_start=false it is another run",
                )
            run.store.download_file(f"runs/{start.run}/{key}", path)
            if _sha256(path) != digest:
                raise DataError(
                    f"{run.id}: {key} of version {start.version} has changed since training started"
                )
    return directory


def _champion(run: Run, base: PretrainedBase, validates_from: str | None) -> Start:
    """The champion, where it fits, without its files. Raises _UnfitError where it does not."""
    pointer = read_pointer(run.store, run.ranker.name)
    version = pointer.stable if pointer else None
    if version is None:
        raise _UnfitError("there is no champion")
    if partition_of(version) >= run.partition:
        raise _UnfitError(f"the champion {version} is not of an older partition")
    manifest = read_manifest(run.store, run.ranker.name, version)
    if manifest is None:
        raise _UnfitError(f"the champion {version} has no manifest")
    earlier = f"runs/{manifest.lineage.run}"
    if (manifest.lineage.base or {}).get("files") != base.files:
        raise _UnfitError(f"the champion {version} has another base model")
    _check_form(run, base, earlier, version)
    _check_days(run, earlier, version, validates_from)
    for key in _keys(run):
        if not run.store.exists(f"{earlier}/{key}"):
            raise _UnfitError(f"the champion {version} left no {key}")
    return Start(version=version, run=manifest.lineage.run, reason="the champion fits")


def _keys(run: Run) -> list[str]:
    return [_WEIGHTS, _CATALOGUE] if run.ranker.kind.over_catalogue else [_WEIGHTS]


def _fetched(run: Run, start: Start) -> Start:
    """With the digests of its files, which are now on this machine."""
    with run.stage("start").lock():
        directory = run.stage("start").directory
        for key in _keys(run):
            run.store.download_file(f"runs/{start.run}/{key}", directory / Path(key).name)
        files = {key: _sha256(directory / Path(key).name) for key in _keys(run)}
    return start.model_copy(update={"files": files})


def _check_form(run: Run, base: PretrainedBase, earlier: str, version: int) -> None:
    found = run.store.get_json(f"{earlier}/{_FORM}")
    if found is None:
        raise _UnfitError(f"the champion {version} left no {_FORM}")
    model = run.ranker.model
    wanted = ModelForm(
        kind=run.ranker.kind,
        pooling=model.pooling,
        max_length=model.max_length,
        architecture=base_architecture(base.path, model.max_length, model.layers),
        items=found.get("items"),
        features=feature_columns(run.ranker.examples.features),
        towers=model.towers,
    )
    theirs = ModelForm.model_validate(found)
    for name in ModelForm.model_fields:
        if getattr(theirs, name) != getattr(wanted, name):
            raise _UnfitError(f"the champion {version} differs in {name}")


def _check_days(run: Run, earlier: str, version: int, validates_from: str | None) -> None:
    """What the champion learned from must not be what this run validates on, or is judged by."""
    if run.ranker.data.split == "query":
        raise _UnfitError(f"the champion {version} learned from queries that are held out today")
    theirs = run.store.get_json(f"{earlier}/examples/result.json") or {}
    if not theirs.get("train_partitions") or validates_from == "":
        raise _UnfitError(f"the days that the champion {version} learned from are not known")
    if validates_from is not None and theirs["train_partitions"][-1] >= validates_from:
        raise _UnfitError(f"the champion {version} learned from days that this run is measured on")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
