"""What customers did with what they got: a day's logged requests joined with its validated clickstream.

Clicks come late. A day is joined when its partition has a verdict that lets its rows be used, and only requests whose
time for a click (`examples.attribution_minutes`) was over within that day count, so that none is judged too early.

Versions are compared within the windows of `concurrent` alone, and there only sessions that began in the window: what a session
got before would follow it. A session belongs to the version that the caller meant for it by its hash, also where the
stable version answered in the canary's place (intention to treat: were such sessions left out, or counted for the version that
answered, a canary would be rid of just those that it failed). Where the log does not say what was meant (callers of before), one answer
of the canary shows that the session was the canary's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from reshelve.clickstream.database import connect, reader, text
from reshelve.clickstream.faults import reason
from reshelve.client.request_log import requests_prefix
from reshelve.config.ranker import Ranker
from reshelve.errors import DataError
from reshelve.rollout.concurrent import FOLLOWING, Window
from reshelve.scratch import scratch
from reshelve.statistics.stratified import Arm, Stratum
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionVerdict

_MOST_PARTS = 2000
_MOST_OF_A_SESSION = 20  # requests: what asks more often is a program, and would outweigh every customer
_COLUMNS = {"move": "BIGINT", "meant": "BIGINT"}  # parts of before do not have them


@dataclass(frozen=True)
class Joined:
    """One version on one day: requests whose time for a click is over, and those that led to one."""

    version: int
    clickable: int
    clicks: int


@dataclass(frozen=True)
class ClickedDay:
    """A day: each version's counts; (first score, whether the first item was clicked, session) of each request; the strata."""

    joined: tuple[Joined, ...]
    scored: list[tuple[float, bool, str]]
    strata: tuple[Stratum, ...]  # canary beside stable, by window and by the hour in which a session began


def join_day(
    store: ObjectStore, ranker: Ranker, verdict: PartitionVerdict, windows: Sequence[Window] = ()
) -> ClickedDay | None:
    """Join one day; None where nothing was logged. Raises DataError where a part of the log cannot be read."""
    day = verdict.partition
    with scratch("clicks") as directory:
        parts = _download(store, ranker.name, day, directory)
        if not parts:
            return None
        earlier = _download(store, ranker.name, day - timedelta(days=1), directory) if windows else []
        good = directory / "good.parquet"
        store.download_file(verdict.file("good.parquet"), good)
        try:
            return join_files(ranker, day, parts, good, windows, earlier, directory / "spill")
        except duckdb.Error as error:
            raise DataError(f"{ranker.name}: the clicks of {day} cannot be joined", reason(error)) from error


def _download(store: ObjectStore, ranker: str, day: date, directory: Path) -> list[Path]:
    keys = [key for key, _ in store.list(requests_prefix(ranker, day))][:_MOST_PARTS]
    paths = [directory / f"{day}-{number}.parquet" for number in range(len(keys))]
    for key, path in zip(keys, paths, strict=True):
        store.download_file(key, path)
    return paths


def join_files(
    ranker: Ranker,
    day: date,
    parts: Sequence[Path],
    good: Path,
    windows: Sequence[Window],
    earlier: Sequence[Path],
    spill: Path,
) -> ClickedDay:
    """`join_day` of files: the log's parts of the day and of the day before, and the partition's good rows."""
    span = f"INTERVAL {ranker.examples.attribution_minutes * 60:.0f} SECOND"
    events = ", ".join(text(name) for name in ranker.data.events)
    with connect(spill=spill) as db:
        known = [name for name, *_ in db.execute(f"DESCRIBE SELECT * FROM {_log(parts)}").fetchall()]
        late = ", ".join(
            name if name in known else f"NULL::{kind} AS {name}" for name, kind in _COLUMNS.items()
        )
        db.execute(
            f"""
            CREATE TABLE asked AS
            WITH clicks AS (SELECT session_id, item_id, event_time FROM {reader([good])} WHERE event_type IN ({events})),
            rows AS (
                SELECT "at", session, version, items, scores, {late}, row_number() OVER () AS number FROM {_log(parts)}
                WHERE "at" <= TIMESTAMP '{day + timedelta(days=1)} 00:00:00' - {span}),
            followed AS (
                SELECT number, bool_or(item_id = items[1]) AS first FROM rows JOIN clicks ON session_id = session
                AND event_time BETWEEN "at" AND "at" + {span} AND list_contains(items, item_id) GROUP BY number)
            SELECT rows.*, followed.number IS NOT NULL AS clicked, coalesce(first, false) AS first
            FROM rows LEFT JOIN followed USING (number)
            """
        )
        counts = db.execute(
            "SELECT version, count(*), count(*) FILTER (clicked) FROM asked WHERE len(items) > 0 GROUP BY version ORDER BY version"
        ).fetchall()
        scored = db.execute(
            "SELECT scores[1], first, session FROM asked WHERE len(items) > 0 AND scores[1] IS NOT NULL ORDER BY number"
        ).fetchall()
        strata = _strata(db, windows, earlier) if windows else ()
    return ClickedDay(tuple(Joined(*row) for row in counts), scored, strata)


def _strata(
    db: duckdb.DuckDBPyConnection, windows: Iterable[Window], earlier: Sequence[Path]
) -> tuple[Stratum, ...]:
    """Both arms by window and hour. An empty answer counts as one that nobody clicked: it may be the version's fault."""
    db.execute(
        "CREATE TABLE windows (id BIGINT, first BIGINT, last BIGINT, begins TIMESTAMP, ends TIMESTAMP, stable BIGINT, canary BIGINT)"
    )
    db.executemany(
        "INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number,
                one.first,
                one.last,
                _utc(one.begins + FOLLOWING),
                _utc(one.ends),
                one.stable,
                one.canary,
            )
            for number, one in enumerate(windows)
        ],
    )
    before = (
        f"SELECT session FROM {_log(earlier)} WHERE session IS NOT NULL"
        if earlier
        else "SELECT NULL WHERE false"
    )
    rows = db.execute(
        f"""
        WITH placed AS (
            SELECT asked.*, id, stable, canary FROM asked LEFT JOIN windows ON CASE
                WHEN move IS NULL THEN "at" >= begins AND "at" < coalesce(ends, TIMESTAMP 'infinity')
                ELSE move BETWEEN windows.first AND windows.last END),
        begun AS (
            SELECT *, first_value(id) OVER session_order AS began, first_value("at") OVER session_order AS began_at,
                row_number() OVER (PARTITION BY session, id ORDER BY "at", number) AS place
            FROM placed WINDOW session_order AS (PARTITION BY session ORDER BY "at", number)),
        sessions AS (
            SELECT id, session, date_trunc('hour', min(began_at)) AS hour, bool_or(coalesce(meant, version) = canary) AS mine,
                count(*)::DOUBLE AS n, count_if(clicked)::DOUBLE AS k
            FROM begun WHERE id = began AND place <= {_MOST_OF_A_SESSION} AND coalesce(meant, version) IN (canary, stable)
                AND session NOT IN ({before})
            GROUP BY id, session)
        SELECT id, hour, mine, count(*), sum(n), sum(k), sum(n * n), sum(n * k), sum(k * k)
        FROM sessions GROUP BY id, hour, mine ORDER BY id, hour, mine
        """
    ).fetchall()
    arms: dict[tuple[int, datetime], dict[bool, Arm]] = {}
    for number, hour, mine, *sums in rows:
        arms.setdefault((number, hour), {})[mine] = Arm(*sums)
    return tuple(Stratum(both.get(True, Arm()), both.get(False, Arm())) for both in arms.values())


def _log(parts: Sequence[Path]) -> str:
    listed = ", ".join(text(path) for path in parts)
    return f"read_parquet([{listed}], union_by_name = true)"


def _utc(at: datetime | None) -> datetime | None:
    """As the log has it: UTC, without a zone."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)
