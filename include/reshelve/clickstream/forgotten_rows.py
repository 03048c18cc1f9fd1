"""The rows of people whom a source has forgotten: found in files, and dropped from them and from DuckDB's table `events`.

A user id is looked for in `user_id` alone. A session counts only in rows without a user id: whoever else has such a row, it
is theirs. Files are read in batches, so that a day may be larger than memory.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reshelve.clickstream.database import column
from reshelve.clickstream.forgotten import Forgotten
from reshelve.errors import DataError
from reshelve.files import whole

USER = "user_id"
SESSIONS = ("session_id", "session")
"""Where rows name a visit: events, and logged requests."""


class DamagedFileError(DataError):
    """A file that opens, and is not what its name says: its bytes are wrong, not the disk, the memory or the network."""


def drop_events(db: duckdb.DuckDBPyConnection, forgotten: Forgotten) -> int:
    """Delete their rows from DuckDB's table `events` (with its `day`); how many."""
    if not forgotten.digests:
        return 0
    users = [
        user for (user,) in _all(db, f"SELECT DISTINCT {USER} FROM events WHERE {USER} IS NOT NULL")
        if forgotten.user(user)
    ]  # fmt: skip
    dropped = _deleted(db, f"DELETE FROM events WHERE {USER} IN (SELECT unnest(?))", [users]) if users else 0
    nobodys = f"({USER} IS NULL OR {USER} = '')"
    visits = [
        (session, day)
        for session, day in _all(
            db, f"SELECT DISTINCT session_id, day FROM events WHERE {nobodys} AND session_id IS NOT NULL"
        )
        if forgotten.session(session, [day] if day else [])
    ]
    if not visits:
        return dropped
    sessions, days = zip(*visits, strict=True)
    statement = (
        f"DELETE FROM events USING (SELECT unnest(?) AS session, unnest(?) AS its_day) AS gone WHERE {nobodys}"
        f" AND {column('session_id')} = gone.session AND events.day IS NOT DISTINCT FROM gone.its_day"
    )
    return dropped + _deleted(db, statement, [list(sessions), list(days)])


def _all(db: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    with db.cursor() as own:
        own.execute(query)
        while rows := own.fetchmany(100_000):
            yield from rows


def _deleted(db: duckdb.DuckDBPyConnection, statement: str, values: list[Any]) -> int:
    row = db.execute(statement, values).fetchone()
    return int(row[0]) if row else 0


def drop_from_file(path: Path, forgotten: Forgotten, days: Sequence[date]) -> int:
    """Rewrite a Parquet file of `days` without rows of theirs, whole or not at all; how many there were.

    Order and schema stay. Raises DamagedFileError.
    """
    if not forgotten.digests or not _any(path, forgotten, days):
        return 0
    dropped, schema = 0, _schema(path)
    with whole(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in _batches(path):
            theirs = _theirs(batch, forgotten, days)
            kept = batch.filter(pc.invert(theirs))
            dropped += len(batch) - len(kept)
            if len(kept):
                writer.write_batch(kept)
    return dropped


def _any(path: Path, forgotten: Forgotten, days: Sequence[date]) -> bool:
    return any(pc.any(_theirs(batch, forgotten, days)).as_py() for batch in _id_batches(path))


def visits_with_them(path: Path, forgotten: Forgotten, day: date) -> tuple[bool, set[str]]:
    """Whether a Parquet file of events has rows of theirs, and the visits in which a person of theirs was named."""
    found, visits = False, set[str]()
    for batch in _id_batches(path):
        found = found or bool(pc.any(_theirs(batch, forgotten, [day])).as_py())
        named = _named(batch, forgotten)
        for session in _sessions(batch):
            visits |= set(map(str, pc.unique(session.filter(named).drop_null()).to_pylist()))
    return found, visits - {""}


def visits_with_others(path: Path, forgotten: Forgotten, visits: Collection[str]) -> set[str]:
    """Those of `visits` in which somebody else was named."""
    shared: set[str] = set()
    wanted = pa.array(sorted(visits), pa.string())
    for batch in _id_batches(path):
        user = _text(batch, USER)
        other = pc.and_(pc.invert(_named(batch, forgotten)), pc.invert(_nobodys(user)))
        for session in _sessions(batch):
            theirs = pc.and_(other, pc.fill_null(pc.is_in(session, wanted), False))
            shared |= set(pc.unique(session.filter(theirs)).to_pylist())
    return shared


def _theirs(batch: pa.RecordBatch, forgotten: Forgotten, days: Sequence[date]) -> pa.Array:
    """Which rows go: those of their user id, and those of their visits that have no user id."""
    found, nobodys = _named(batch, forgotten), _nobodys(_text(batch, USER))
    for session in _sessions(batch):
        visits = pc.unique(session.filter(nobodys).drop_null()).to_pylist()
        gone = pa.array([visit for visit in visits if forgotten.session(visit, days)], pa.string())
        found = pc.or_(found, pc.and_(nobodys, pc.fill_null(pc.is_in(session, gone), False)))
    return found


def _named(batch: pa.RecordBatch, forgotten: Forgotten) -> pa.Array:
    user = _text(batch, USER)
    gone = [value for value in pc.unique(user.drop_null()).to_pylist() if forgotten.user(value)]
    return pc.fill_null(pc.is_in(user, pa.array(gone, pa.string())), False)


def _nobodys(user: pa.Array) -> pa.Array:
    return pc.fill_null(pc.equal(user, ""), True)


def _text(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        return pa.nulls(len(batch), pa.string())
    ids = batch.column(name)
    try:
        return ids.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{name} is of type {ids.type}", "expected text") from error


def _sessions(batch: pa.RecordBatch) -> list[pa.Array]:
    return [_text(batch, name) for name in SESSIONS if name in batch.schema.names]


def _schema(path: Path) -> pa.Schema:
    with _reading(path):
        return pq.read_schema(path)


def _id_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The columns of ids; nothing where there are none."""
    names = [name for name in (USER, *SESSIONS) if name in _schema(path).names]
    for batch in _batches(path, names) if names else ():
        with _reading(path):
            batch.validate(full=True)  # bytes that are no UTF-8 would fail later, as something else
        yield batch


def _batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    with _reading(path), pq.ParquetFile(path) as file:
        yield from file.iter_batches(columns=columns)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises DamagedFileError for what the bytes are to blame for; a full disk, or one that fails, says its errno."""
    try:
        yield
    except (pa.ArrowInvalid, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise DamagedFileError(f"it cannot be read ({type(error).__name__})", path.name) from error


def mentions(path: Path, known: Forgotten, day: date) -> bool:
    """Whether a file of text (CSV, JSON lines, gzip or not) has one of the ids as a field, of whatever kind.

    Raises DamagedFileError.
    """
    answers: dict[str, bool] = {}
    with _reading(path):
        for line in _lines(path):
            for value in re.split(r"[,;\t\"{}:\s]+", line):
                if value not in answers:
                    answers[value] = known.user(value) or known.session(value, [day])
                if answers[value]:
                    return True
    return False


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", errors="replace") as packed:
            yield from packed
    else:
        with path.open(errors="replace") as plain:
            yield from plain
