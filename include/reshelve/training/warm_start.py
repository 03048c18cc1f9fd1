"""Where a night's training starts: from the champion's float weights where they fit, else from the base.

Decided once for each run and written to `runs/<run>/start.json` before anything is trained: a retry, and every trial of the
search, starts from the same weights, whatever has been released meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import DataError
from reshelve.features.columns import feature_columns
from reshelve.files import digest_of_file
from reshelve.kind_registry import kind_of
from reshelve.lineage.results import ExamplesResult
from reshelve.lineage.run import Run, stage_prefix
from reshelve.logs import logger
from reshelve.model.base import BaseModel as PretrainedBase
from reshelve.model.description import ModelForm
from reshelve.model.ranker_form import form_of
from reshelve.store.layout import run_folder
from reshelve.store.objects import PreconditionFailedError
from reshelve.store.versions import partition_of, read_manifest

_WEIGHTS, _FORM, _CATALOGUE = "train/model.safetensors", "train/model.json", "examples/catalogue.parquet"


class WarmStart(BaseModel):
    """The decision. `version` and `run` are the champion's, null for the base; `files` maps keys to sha256."""

    model_config = ConfigDict(frozen=True)

    version: int | None = None
    run: str | None = None
    reason: str
    asked: int | None = None  # the champion that was looked at, whether it fits or not
    files: dict[str, str] = {}

    def record(self) -> dict[str, Any]:
        """What the train stage's result says of it."""
        return {
            "from": "base" if self.version is None else "champion",
            **self.model_dump(exclude={"files", "asked"}),
        }


class _UnfitError(Exception):
    """Why this champion's weights are no start for this run."""


def choose_start(run: Run, base: PretrainedBase) -> WarmStart:
    """The run's start, decided now if it has not been. Raises TryAgainError where the store is away."""
    if not run.ranker.training.warm_start:
        return WarmStart(reason="training.warm_start is false")
    key = f"{run.prefix}/start.json"
    found = run.store.get_json(key)
    if found is None:
        examples = run.stage("examples").read(ExamplesResult)
        first = ((examples and examples.validation_partitions) or ("",))[0]
        asked = champion_asked(run)
        try:
            decided = _fetched(run, _champion(run, base, first))
        except (_UnfitError, DataError) as error:
            decided = WarmStart(reason=str(error).partition("\n")[0])
        try:
            decided = decided.model_copy(update={"asked": decided.version or asked})
            run.store.put_json(key, decided.model_dump(mode="json"), if_absent=True)
            logger(stage="train", run=run.id).info(
                "training starts", version=decided.version or "base", reason=decided.reason
            )
        except PreconditionFailedError:
            logger(stage="train", run=run.id).info("another process was first to decide the start")
        found = run.store.get_json(key)
    return WarmStart.model_validate(found)


def expected_start(run: Run, base: PretrainedBase, validates_from: str | None) -> WarmStart:
    """What `choose_start` would decide as things are; nothing is written or fetched.

    `validates_from`: the first day of validation, None where it is not known yet.
    """
    if not run.ranker.training.warm_start:
        return WarmStart(reason="training.warm_start is false")
    found = run.store.get_json(f"{run.prefix}/start.json")
    if found is not None:
        return WarmStart.model_validate(found)
    try:
        expected = _champion(run, base, validates_from)
    except (_UnfitError, DataError) as error:
        expected = WarmStart(reason=str(error).partition("\n")[0])
    return expected.model_copy(update={"asked": expected.version or champion_asked(run)})


def champion_asked(run: Run) -> int | None:
    """The champion that the run's start is decided by, as it was decided, or as it would be now; None for the base."""
    if not run.ranker.training.warm_start:
        return None
    found = run.store.get_json(f"{run.prefix}/start.json")
    if found is not None:
        decided = WarmStart.model_validate(found)
        return decided.version or decided.asked
    pointer = read_pointer(run.store, run.ranker.name)
    version = pointer.stable if pointer else None
    return version if version is not None and partition_of(version) < run.partition else None


def start_files(run: Run, start: WarmStart) -> Path | None:
    """The directory with the champion's model.safetensors and catalogue.parquet; None for the base.

    Raises DataError where they are gone or have changed since they were chosen.
    """
    if start.version is None or start.run is None:
        return None
    with run.stage("start").lock():  # trials side by side must not fetch the same file at once
        directory = run.stage("start").directory
        for key, digest in start.files.items():
            path = directory / Path(key).name
            if path.is_file() and digest_of_file(path) == digest:
                continue
            if not run.store.exists(_key(run, start.run, key)):
                raise DataError(
                    f"{run.id}: the weights of version {start.version}, from which this run started, are gone",
                    "expected them below runs/ until the run is done; with training.warm_start=false it is another run",
                )
            run.store.download_file(_key(run, start.run, key), path)
            if digest_of_file(path) != digest:
                raise DataError(
                    f"{run.id}: {key} of version {start.version} has changed since training started"
                )
    return directory


def _champion(run: Run, base: PretrainedBase, validates_from: str | None) -> WarmStart:
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
    earlier = manifest.lineage.run
    if (manifest.lineage.base or {}).get("files") != base.files:
        raise _UnfitError(f"the champion {version} has another base model")
    _check_form(run, base, earlier, version)
    _check_days(run, earlier, version, validates_from)
    for key in _keys(run):
        if not run.store.exists(_key(run, earlier, key)):
            raise _UnfitError(f"the champion {version} left no {key}")
    return WarmStart(version=version, run=manifest.lineage.run, reason="the champion is compatible")


def _key(run: Run, earlier: str, key: str) -> str:
    """The full key of `<stage>/<file>` of an earlier run, which may have taken that stage over from another."""
    stage, _, name = key.partition("/")
    return f"{stage_prefix(run.store, earlier, stage)}/{name}"


def _keys(run: Run) -> list[str]:
    return [_WEIGHTS, _CATALOGUE] if kind_of(run.ranker.kind).scores_catalogue else [_WEIGHTS]


def _fetched(run: Run, start: WarmStart) -> WarmStart:
    """With the digests of its files, which are now on this machine."""
    assert start.run is not None  # it has a champion, and so its run
    with run.stage("start").lock():
        directory = run.stage("start").directory
        for key in _keys(run):
            run.store.download_file(_key(run, start.run, key), directory / Path(key).name)
        files = {key: digest_of_file(directory / Path(key).name) for key in _keys(run)}
    return start.model_copy(update={"files": files})


def _check_form(run: Run, base: PretrainedBase, earlier: str, version: int) -> None:
    found = run.store.get_json(_key(run, earlier, _FORM))
    if found is None:
        raise _UnfitError(f"the champion {version} left no {_FORM}")
    wanted = form_of(
        base.path,
        run.ranker.kind,
        run.ranker.model,
        items=found.get("items"),
        features=feature_columns(run.ranker.examples.features),
    )
    theirs = ModelForm.model_validate(found)
    for name in sorted(
        set(ModelForm.model_fields) - {"index_size"}
    ):  # training teaches any, from what it finds
        if getattr(theirs, name) != getattr(wanted, name):
            raise _UnfitError(f"the champion {version} differs in {name}")


def _check_days(run: Run, earlier: str, version: int, validates_from: str | None) -> None:
    """What the champion learned from must not be what this run validates on, or is judged by."""
    if run.ranker.data.split == "query":
        raise _UnfitError(f"the champion {version} was trained on queries that are held out today")
    theirs = run.store.get_json(f"{run_folder(earlier)}examples/result.json") or {}
    if not theirs.get("train_partitions") or validates_from == "":
        raise _UnfitError(f"the days that the champion {version} was trained on are unknown")
    if validates_from is not None and theirs["train_partitions"][-1] >= validates_from:
        raise _UnfitError(f"the champion {version} was trained on days that this run is evaluated on")
