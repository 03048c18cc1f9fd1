"""Whom a source has forgotten: what `reshelve forget` was asked for, so that nothing brings their rows back.

`forgotten/<source>/<name>.json`, one for each call: digests of the ids, of which each stage drops the rows that it reads,
and the days on which rows were found. Raw files, and programs that land for themselves, still have those rows: landing,
and the examples stage, leave them out from then on. Ids are kept as digests only; who has one can see whether it is there.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from reshelve.clickstream.database import column
from reshelve.files import whole
from reshelve.store.objects import ObjectStore

ID_COLUMNS = ("user_id", "session_id", "session")
"""Where rows of any file name a person: events, and logged requests."""


class Request(BaseModel):
    """One call of `forget`, as it is kept."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    ids: tuple[str, ...]  # digests, sorted
    days: tuple[date, ...] = ()

    @property
    def mark(self) -> str:
        """Names its ids: a run that has it among those it left out has read no row of theirs."""
        return _short(self.ids)


def _short(digests: Iterable[str]) -> str:
    listed = "".join(sorted(digests))
    return hashlib.sha256(listed.encode()).hexdigest()[:12] if listed else ""


@dataclass(frozen=True)
class Forgotten:
    """All digests of a source. `generation` names them: empty where nobody was forgotten. `requests` are their marks."""

    digests: frozenset[str]
    generation: str
    requests: tuple[str, ...]

    def names(self, value: str) -> bool:
        """Whether an id is one of them."""
        return digest_of(value) in self.digests


def prefix_of(source: str) -> str:
    """Where a source's requests are."""
    return f"forgotten/{source}/"


def digest_of(value: str) -> str:
    """What is kept of an id."""
    return hashlib.sha256(f"reshelve forget\0{value}".encode()).hexdigest()


def read_forgotten(store: ObjectStore, source: str) -> Forgotten:
    """What a source was asked to forget so far."""
    found = [
        Request.model_validate(store.get_json(key))
        for key, _ in store.list(prefix_of(source))
        if key.endswith(".json")
    ]
    digests = frozenset(digest for request in found for digest in request.ids)
    return Forgotten(digests, _short(digests), tuple(sorted(request.mark for request in found)))


def add_request(
    store: ObjectStore, source: str, name: str, ids: Iterable[str], days: Collection[date]
) -> Request:
    """Keep, or add to, the request of that name; what was in it stays."""
    key = f"{prefix_of(source)}{name}.json"
    before = store.get_json(key)
    known = Request.model_validate(before) if before else Request(at=datetime.now(UTC), ids=())
    made = Request(
        at=known.at,
        ids=tuple(sorted({*known.ids, *map(digest_of, ids)})),
        days=tuple(sorted({*known.days, *days})),
    )
    if made != known:
        store.put_json(key, made.model_dump(mode="json"))
    return made


def drop_events(db: duckdb.DuckDBPyConnection, forgotten: Forgotten) -> int:
    """Delete their rows from DuckDB's table `events`; how many."""
    if not forgotten.digests:
        return 0
    dropped = 0
    for name in map(column, ("user_id", "session_id")):
        found = db.execute(f"SELECT DISTINCT {name} FROM events WHERE {name} IS NOT NULL").fetchall()
        doomed = [value for (value,) in found if forgotten.names(value)]
        if doomed:
            row = db.execute(f"DELETE FROM events WHERE {name} IN (SELECT unnest(?))", [doomed]).fetchone()
            dropped += int(row[0]) if row else 0
    return dropped


def drop_from_file(path: Path, digests: frozenset[str]) -> int:
    """Rewrite a Parquet file without rows of theirs, whole or not at all; how many there were. Order and schema stay.

    Raises pyarrow.ArrowException where the file is damaged.
    """
    if not digests:
        return 0
    with pq.ParquetFile(path) as file:
        named = [name for name in ID_COLUMNS if name in file.schema_arrow.names]
        if not named:
            return 0
        ids = pq.read_table(path, columns=named)
    doomed = {name: _doomed(ids[name], digests) for name in named}
    if not any(doomed.values()):
        return 0
    table = pq.read_table(path)
    bad = [pc.fill_null(pc.is_in(table[name].cast(pa.string()), pa.array(found, pa.string())), False) for name, found in doomed.items()]  # fmt: skip
    either = bad[0]
    for more in bad[1:]:
        either = pc.or_(either, more)
    kept = table.filter(pc.invert(either))
    with whole(path) as partial:
        pq.write_table(kept, partial, compression="zstd")
    return len(table) - len(kept)


def _doomed(ids: pa.ChunkedArray, digests: frozenset[str]) -> list[str]:
    return [
        str(value)
        for value in pc.unique(ids).to_pylist()
        if value is not None and digest_of(str(value)) in digests
    ]


def mentions(path: Path, known: Forgotten) -> bool:
    """Whether a file of text (CSV, JSON lines, gzip or not) has one of the ids as a field. Raises OSError, EOFError."""
    answers: dict[str, bool] = {}
    for line in _lines(path):
        for value in re.split(r"[,;\t\"{}:\s]+", line):
            if value not in answers:
                answers[value] = known.names(value)
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
