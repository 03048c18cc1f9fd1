"""The runs that read a source: which there are, which days they read, and which are at work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from reshelve.config.ranker import ranker_names, read_ranker
from reshelve.errors import ConfigurationError
from reshelve.files import take_lock
from reshelve.names import is_day, rankers_in
from reshelve.pipeline.pinned_night import LONGEST_NIGHT
from reshelve.settings import settings
from reshelve.store.json_documents import json_object, moment
from reshelve.store.layout import REQUESTS, RUNS, run_folder, runs_of
from reshelve.store.objects import ObjectStore

ENDED = "ended_at"
"""What `forget` adds to the pin of a night whose work it has deleted."""
_DIGEST = re.compile(r"[0-9a-f]{12}")


def rankers_of(store: ObjectStore, source: str) -> list[str]:
    """Rankers of the source, by their files and by what their nights said: a file may be gone.

    Where nothing tells whose customers a log of requests is of, it may be of this source's.
    """
    found, told = set(), set(ranker_names())
    for name in ranker_names():
        try:
            if read_ranker(name).data.source == source:
                found.add(name)
        except ConfigurationError:
            found.add(name)  # it cannot be said: its runs say whether they read such days
    for name in rankers_in(store.folders(RUNS), RUNS):
        runs = list(runs_of_ranker(store, name))
        sources = {source_of(store, run) for run in runs[-3:]} - {None}
        told |= {name} if sources else set()
        found |= {name} if source in sources else set()
    return sorted(found | (set(rankers_in(store.folders(REQUESTS), REQUESTS)) - told))


def runs_of_ranker(store: ObjectStore, ranker: str) -> Iterator[str]:
    """The ids of a ranker's runs."""
    for day in filter(is_day, store.folders(runs_of(ranker))):
        for digest in store.folders(f"{runs_of(ranker)}{day}/"):
            if _DIGEST.fullmatch(digest):  # beside them are the day's records of stages
                yield f"{ranker}/{day}/{digest}"


def source_of(store: ObjectStore, run: str) -> str | None:
    """The source that a run reads; None where neither its examples nor its pin say it."""
    found = said(store, f"{run_folder(run)}examples/result.json").get("source")
    try:
        pinned = (
            said(store, f"{run_folder(run)}pin.json")["ranker"]["data"]["source"] if found is None else found
        )
    except (KeyError, TypeError):
        return None
    return pinned if isinstance(pinned, str) else None


def said(store: ObjectStore, key: str) -> dict[str, Any]:
    """What a document of a run says: nothing, where it is missing or damaged. Anybody may have written it who writes to the bucket."""
    found = store.get(key)
    try:
        return {} if found is None else json_object(found.body)
    except ValueError:
        return {}


def days_read(store: ObjectStore, run: str, mark: str) -> set[date] | None:
    """The days whose rows a run has read: none where it left out whom `mark` names; None where it does not say: any, then."""
    found = said(store, f"{run_folder(run)}examples/result.json")
    try:
        days = {date.fromisoformat(day) for day in found["verdicts"]}
        return set() if mark and mark in found.get("left_out", ()) else days
    except (KeyError, TypeError, ValueError):
        return None


def under_way(store: ObjectStore, source: str) -> list[str]:
    """Runs of the source that are at work on this machine, or began within a night's time and have not ended."""
    found = []
    since = datetime.now(UTC) - LONGEST_NIGHT
    for ranker in rankers_of(store, source):
        for run in runs_of_ranker(store, ranker):
            if source_of(store, run) not in (source, None):
                continue
            pin = said(store, f"{run_folder(run)}pin.json")
            begun = moment(pin.get("begun_at"))
            if begun is not None and begun > since and not pin.get(ENDED) and not _ended(store, run):
                found.append(run)
        for lock in sorted((settings().work / ranker).glob("*/*/.*.lock")):
            run = f"{ranker}/{lock.parent.parent.name}/{lock.parent.name}"
            with lock.open("a") as handle:
                if not take_lock(handle) and run not in found:
                    found.append(run)
    return found


def _ended(store: ObjectStore, run: str) -> bool:
    """Whether it has published, or the gate has refused it."""
    if said(store, f"{run_folder(run)}publish/result.json"):
        return True
    return said(store, f"{run_folder(run)}gate/result.json").get("verdict") == "reject"
