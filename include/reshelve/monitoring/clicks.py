"""What customers did with what they got: logged requests joined with the clickstream of their day, once it is validated.

Clicks come late. A day is joined when its partition has a verdict that lets its rows be used, and only requests whose
time for a click (`examples.attribution_minutes`) was over within that day count, so that none is judged too early.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from reshelve.clickstream.database import connect, reader, text
from reshelve.clickstream.verdicts import Verdict, read_verdict
from reshelve.evaluation.calibration import Predictions, expected_calibration_error
from reshelve.logs import logger
from reshelve.monitoring.checks import judged
from reshelve.monitoring.collect import Seen
from reshelve.monitoring.memory import Memory
from reshelve.monitoring.observations import Condition, Finding
from reshelve.serving.judge import difference_of_rates
from reshelve.serving.request_log import requests_prefix
from reshelve.store.objects import ObjectStore

_SEED = 7
_MOST_PARTS = 2000
_LEAST = 200  # joined requests of a version that is compared


@dataclass(frozen=True)
class Joined:
    """One version on one day: requests whose time for a click is over, and those that led to one."""

    version: int
    clickable: int
    clicks: int


def join_clicks(
    store: ObjectStore, seen: Seen, memory: Memory
) -> tuple[date | None, tuple[Joined, ...], dict[str, float]]:
    """Join the oldest day that can be and was not; (the day or None, each version of it, measured numbers)."""
    ranker = seen.ranker
    if seen.verdict is None:  # nothing was ever validated
        return None, (), {}
    for day in _days(store, ranker.name, memory.joined):
        verdict = read_verdict(store, ranker.data.source, day)
        if verdict is None or not verdict.usable:
            if seen.verdict.partition > day and verdict is not None:
                memory.joined = day  # stopped: its clicks are not to be believed
            continue
        memory.joined = day
        with tempfile.TemporaryDirectory() as scratch:
            found = _join(store, seen, verdict, Path(scratch))
        if found is None:
            continue
        joined, scored = found
        judged(memory, "clicks", _judge(seen, joined))
        logger(ranker=ranker.name).info("clicks joined", day=str(day), versions=len(joined))
        return day, joined, _calibration(scored)
    return None, (), {}


def _days(store: ObjectStore, ranker: str, after: date | None) -> list[date]:
    found = []
    for folder in store.folders(f"requests/{ranker}/"):
        day = date.fromisoformat(folder.removeprefix("dt="))
        if after is None or day > after:
            found.append(day)
    return found


def _join(
    store: ObjectStore, seen: Seen, verdict: Verdict, scratch: Path
) -> tuple[tuple[Joined, ...], list[tuple[float, bool, str]]] | None:
    """Each version's counts; and (first score, whether the first item was clicked, session) of every request."""
    ranker, day = seen.ranker, verdict.partition
    keys = [key for key, _ in store.list(requests_prefix(ranker.name, day))][:_MOST_PARTS]
    if not keys:
        return None
    parts = [scratch / f"{number}.parquet" for number in range(len(keys))]
    for key, path in zip(keys, parts, strict=True):
        store.download_file(key, path)
    good = scratch / "good.parquet"
    store.download_file(verdict.file("good.parquet"), good)
    window = timedelta(minutes=ranker.examples.attribution_minutes)
    events = ", ".join(text(name) for name in ranker.data.events)
    last = f"TIMESTAMP '{day + timedelta(days=1)} 00:00:00' - {_interval(window)}"
    with connect(spill=scratch / "spill") as db:
        rows = db.execute(
            f"""
            WITH clicks AS (SELECT session_id, item_id, event_time FROM {reader([good])} WHERE event_type IN ({events})),
            asked AS (SELECT *, row_number() OVER () AS number FROM {reader(parts)} WHERE len(items) > 0 AND "at" <= {last}),
            followed AS (
                SELECT number, bool_or(item_id = items[1]) AS first FROM asked JOIN clicks ON session_id = session
                AND event_time BETWEEN "at" AND "at" + {_interval(window)} AND list_contains(items, item_id) GROUP BY number)
            SELECT version, scores[1], followed.number IS NOT NULL, coalesce(first, false), session
            FROM asked LEFT JOIN followed USING (number)
            """
        ).fetchall()
    counts: dict[int, list[int]] = {}
    for version, _, followed, _, _ in rows:
        counts.setdefault(version, [0, 0])[0] += 1
        counts[version][1] += followed
    joined = tuple(Joined(version, *counts[version]) for version in sorted(counts))
    return joined, [(score, first, session) for _, score, _, first, session in rows if score is not None]


def _interval(span: timedelta) -> str:
    return f"INTERVAL {span.total_seconds():.0f} SECOND"


def _judge(seen: Seen, joined: Sequence[Joined]) -> Finding | None:
    """The newest version beside the one that most customers had on the same day: sessions were placed by chance."""
    enough = [one for one in joined if one.clickable >= _LEAST]
    if len(enough) < 2:
        return None
    newest = enough[-1]
    usual = max(enough[:-1], key=lambda one: one.clickable)
    low, high = difference_of_rates(usual.clicks, usual.clickable, newest.clicks, newest.clickable)
    most = seen.ranker.watch.max_click_drop * usual.clicks / usual.clickable
    if low <= most:
        return None
    evidence = {"clicks": {one.version: [one.clicks, one.clickable] for one in (usual, newest)}}
    said = f"click-through of {newest.version} lower than of {usual.version} by {low:.2%} to {high:.2%} of the requests"
    role = {seen.pointer.canary: Condition.BAD_CANARY, seen.pointer.stable: Condition.BAD_VERSION}
    condition = role.get(newest.version, Condition.ODD)
    return Finding(
        condition=condition, check="clicks", version=newest.version, reason=said, evidence=evidence
    )


def _calibration(scored: Sequence[tuple[float, bool, str]]) -> dict[str, float]:
    """The expected calibration error of the first items' scores, where they are probabilities."""
    if len(scored) < _LEAST or not all(0 <= score <= 1 for score, _, _ in scored):
        return {}
    score, first, session = zip(*scored, strict=True)
    found = expected_calibration_error(
        Predictions(np.array(score, dtype=float), np.array(first, dtype=bool), np.ones(len(scored)), session),
        _SEED,
    )
    return {} if found is None else {"calibration_error": round(found.value, 4)}
