"""Housekeeping: old versions, old work and old looks go; what is stable, previous, canary or among the newest stays."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer, settle
from reshelve.errors import DataError
from reshelve.lineage.run import EXPIRED
from reshelve.logs import logger
from reshelve.names import version_of
from reshelve.pipeline.personal_data import (
    ENCODED_KEPT,
    EXAMPLES,
    EXAMPLES_KEPT,
    HOME,
    SCRATCH_KEPT,
    SCRATCH_OF,
    WORK,
    WORK_KEPT,
    held_as,
)
from reshelve.settings import settings
from reshelve.store.conditions import AGENTS_PREFIX, CHECKS_PREFIX, leftovers
from reshelve.store.layout import deployments_of, encoded_of, models_of, runs_of
from reshelve.store.manifest import ABOUT, CLAIM, MANIFEST, partition_of, version_prefix
from reshelve.store.objects import ObjectStore, PreconditionFailedError, object_store
from reshelve.store.uploads import abandon
from reshelve.store.versions import list_versions

_UNFINISHED_UPLOAD = timedelta(days=1)
_QUIET_WORK = timedelta(days=2)
_CHECKED = ("models", "deployments", "runs", "searches", "monitoring")
_IN_USE = ("pin.json", "examples/result.json")  # of a run: it began, it has made or taken over its examples
_SILENT = timedelta(days=7)  # a caller or an agent that comes back writes its report anew


def clean(ranker: Ranker, *, dry_run: bool) -> dict[str, Any]:
    """Delete versions beyond `release.keep`, uploads never finished, and work of partitions older than all kept.

    What a run's examples hold of customers goes before that, and so do work directories of this machine that nothing uses.
    How long each is kept, `personal_data` says. Looks of the watch and logged requests go after `watch.keep_days`, reports of callers and agents that ended a week
    after their last one. Answers what went (or would go): versions, unfinished uploads, run prefixes, days of looks and
    requests, reports, vectors of titles, and what is kept.
    """
    store = object_store()
    pointer = settle(store, ranker.name)
    kept = _kept(store, ranker, pointer)
    doomed = [version for version in list_versions(store, ranker.name) if version not in kept]
    unfinished = _unfinished(store, ranker.name)
    runs = _old_runs(store, ranker.name, kept)
    days = _old_days(store, ranker)
    reports = _old_reports(store, ranker.name)
    examples = _old_examples(store, ranker.name, runs)
    encoded = _old_encoded(store, ranker.name, kept)
    work = _old_work()
    if not dry_run:
        for stage, keys in examples.items():
            store.put_json(
                f"{stage}/{EXPIRED}", {"at": datetime.now(UTC).isoformat()}
            )  # before a file is missing
            store.delete(keys)
        for directory in work:
            shutil.rmtree(directory, ignore_errors=True)
        doomed = [version for version in doomed if _delete_version(store, ranker.name, version)]
        for version in unfinished:
            abandon(store, version_prefix(ranker.name, version) + "/")
            _delete_below(store, version_prefix(ranker.name, version), keep=CLAIM)
        for prefix in (*runs, *days):
            _delete_below(store, prefix)
        store.delete(reports)
        store.delete(encoded)
        logger(ranker=ranker.name).info(
            "cleaned",
            versions=len(doomed),
            unfinished=len(unfinished),
            runs=len(runs),
            days=len(days),
            reports=len(reports),
            examples=len(examples),
            encoded=len(encoded),
            work=len(work),
        )
    return {
        "ranker": ranker.name,
        "dry_run": dry_run,
        "versions": doomed,
        "unfinished": unfinished,
        "runs": runs,
        "days": days,
        "reports": reports,
        "examples": sorted(examples),
        "encoded": encoded,
        "work": [str(directory) for directory in work],
        "kept": sorted(kept),
    }


def _kept(store: ObjectStore, ranker: Ranker, pointer: Pointer | None) -> set[int]:
    newest = list_versions(store, ranker.name)[-ranker.release.keep :]
    return {*newest, *(pointer.wanted if pointer else ())}


def _delete_version(store: ObjectStore, ranker: str, version: int) -> bool:
    """Delete one version, its manifest first: it ceases to exist before its files go.

    A release may be offering this very version. It moves the pointer, then looks at the manifest; here the manifest
    goes, then the pointer is looked at: one of the two always sees the other. Whoever wins, no version without
    files is served.
    """
    key = f"{version_prefix(ranker, version)}/{MANIFEST}"
    manifest = store.get(key)
    if manifest is None:
        return False
    store.delete([key])
    pointer = settle(store, ranker)
    if pointer is not None and version in pointer.wanted:
        with suppress(PreconditionFailedError):  # somebody put it back already
            store.put(key, manifest.body, if_absent=True, content_type="application/json")
        logger(ranker=ranker, version=version).info("kept: it is being released")
        return False
    _delete_below(store, version_prefix(ranker, version), keep=CLAIM)
    return True


def _delete_below(store: ObjectStore, prefix: str, keep: str = "") -> None:
    """Everything below a prefix. A deleted version's claim stays: its integer is never used again."""
    keys = [key for key, _ in store.list(f"{prefix}/")]
    store.delete([key for key in keys if key != f"{prefix}/{keep}"])


def _unfinished(store: ObjectStore, ranker: str) -> list[int]:
    """Claimed integers with files but no manifest, from publishers that died at least a day ago."""
    found = []
    published = set(list_versions(store, ranker))
    for name in store.folders(models_of(ranker)):
        version = version_of(name)
        if version is None or version in published:
            continue
        prefix = f"{models_of(ranker)}{name}/"
        claim = store.get_json(prefix + CLAIM)
        files = [key for key, _ in store.list(prefix) if key != prefix + CLAIM]
        if files and (claim is None or _age(claim.get("at")) > _UNFINISHED_UPLOAD):
            found.append(version)
    return found


def _age(at: Any) -> timedelta:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(str(at))
    except (ValueError, TypeError) as error:
        raise DataError(f"{at!r} in a claim is no time", "expected ISO 8601 with its zone") from error


def _old_runs(store: ObjectStore, ranker: str, kept: set[int]) -> list[str]:
    """Work of partitions older than every kept version, untouched for days: a backfill may be busy with old ones."""
    if not kept:
        return []
    oldest = min(partition_of(version) for version in kept)
    prefixes = [
        f"{runs_of(ranker)}{name}" for name in store.folders(runs_of(ranker)) if _is_before(name, oldest)
    ]
    return [prefix for prefix in prefixes if _untouched(store, f"{prefix}/", _QUIET_WORK)]


def _old_examples(store: ObjectStore, ranker: str, gone: list[str]) -> dict[str, list[str]]:
    """Examples stages of runs that are kept: their files with what customers asked, long after the night.

    None of a day on which a run began or got its examples lately: it may have taken over those of an older run.
    """
    found: dict[str, list[str]] = {}
    for day in store.folders(runs_of(ranker)):
        if f"{runs_of(ranker)}{day}" in gone:
            continue
        runs = [f"{runs_of(ranker)}{day}/{digest}" for digest in store.folders(f"{runs_of(ranker)}{day}/")]
        if any(_touched(store, f"{run}/{key}", EXAMPLES_KEPT) for run in runs for key in _IN_USE):
            continue
        for run in runs:
            stage = f"{run}/examples"
            keys = [key for key, _ in store.list(f"{stage}/") if EXAMPLES.holds(key)]
            if keys and _untouched(store, f"{stage}/", EXAMPLES_KEPT):
                found[stage] = keys
    return found


def _old_encoded(store: ObjectStore, ranker: str, kept: set[int]) -> list[str]:
    """Vectors of titles: of encoders that no kept version has (one may be about to be published), and old ones of any."""
    abouts = (store.get_json(f"{version_prefix(ranker, version)}/{ABOUT}") for version in kept)
    used = {about.get("encoder") for about in abouts if about}
    found = []
    for encoder in store.folders(encoded_of(ranker)):
        folder = f"{encoded_of(ranker)}{encoder}/"
        keys = [key for key, _ in store.list(folder)]
        if encoder not in used and _untouched(store, folder, _QUIET_WORK):
            found += keys
        else:
            found += [key for key in keys if _untouched(store, key, ENCODED_KEPT)]
    return found


def _old_work() -> list[Path]:
    """Work directories of runs, and what killed processes left of theirs, on this machine.

    Of every ranker: nobody else comes for those of one whose file is gone.
    """
    home, work = settings().home, settings().work
    runs = (path for path in work.glob("*/*/*") if held_as(f"{path.relative_to(home)}/any", HOME) is WORK)
    places = [(WORK_KEPT, path) for path in runs]
    places += [(SCRATCH_KEPT, path) for name in SCRATCH_OF for path in work.glob(f"{name}-*")]
    return sorted(path for kept, path in places if path.is_dir() and _quiet(path, kept))


def _quiet(directory: Path, kept: timedelta) -> bool:
    """Whether nothing below was written for so long; what is gone meanwhile is not looked at."""
    oldest = time.time() - kept.total_seconds()
    with suppress(FileNotFoundError):
        return all(path.lstat().st_mtime < oldest for path in (directory, *directory.rglob("*")))
    return False


def _old_days(store: ObjectStore, ranker: Ranker) -> list[str]:
    """Prefixes of the days of looks and of logged requests that are older than the ranker file keeps them."""
    oldest = datetime.now(UTC).date() - timedelta(days=ranker.watch.keep_days)
    return [
        f"{kind}/{ranker.name}/{day}"
        for kind in ("monitoring", "requests")
        for day in store.folders(f"{kind}/{ranker.name}/")
        if _is_before(day.removeprefix("dt="), oldest)
    ]


def _old_reports(store: ObjectStore, ranker: str) -> list[str]:
    """Of callers, agents and releases that have not written for a week (each process of a caller has a name of its own),
    and what checks of the store left (`store.conditions`)."""
    keys = [
        key
        for kind in ("agents", "traffic", "working")
        for key, _ in store.list(f"{deployments_of(ranker)}{kind}/")
    ]
    checked = (AGENTS_PREFIX, CHECKS_PREFIX, *(f"{kind}/{ranker}/" for kind in _CHECKED))
    left = [key for prefix in checked for key in leftovers(store, prefix)]
    return [key for key in keys if _untouched(store, key, _SILENT)] + left


def _touched(store: ObjectStore, key: str, span: timedelta) -> bool:
    touched = store.last_modified(key)
    return touched is not None and datetime.now(UTC) - touched <= span


def _untouched(store: ObjectStore, prefix: str, span: timedelta) -> bool:
    touched = store.last_modified(prefix)
    return touched is not None and datetime.now(UTC) - touched > span


def _is_before(name: str, day: date) -> bool:
    try:
        return date.fromisoformat(name) < day
    except ValueError:
        return False
