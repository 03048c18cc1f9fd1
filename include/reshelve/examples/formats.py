"""The Parquet files that the examples stage hands to the stages after it, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.files import whole
from reshelve.logs import logger
from reshelve.progress import Progress

_FEWEST_JUDGED = 3  # items of a judged query: any order of fewer is nearly right
_ROWS = 4096  # rows per written batch and row group: bounds memory whatever the number of examples

CATALOGUE = pa.schema(
    [
        pa.field("index", pa.int32()),  # the row of the softmax, 0-based
        pa.field("item_id", pa.string()),
        pa.field("title", pa.string()),  # never null: an untitled item is called by its id
        pa.field("events", pa.int64()),  # label events in the catalogue days before the holdout
        pa.field("events_train", pa.int64()),  # those of training partitions alone
        pa.field("category", pa.string()),  # null where unknown
        pa.field("names", pa.list_(pa.string())),  # other titles that its events had, the commonest first
    ]
)

CATALOGUE_EXAMPLES = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32())),
        pa.field("targets", pa.list_(pa.int32())),  # catalogue indices of the rest of the basket
        pa.field("weight", pa.float64()),
    ]
)

PAIR_EXAMPLES = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32())),
        pa.field("token_type_ids", pa.list_(pa.int8())),
        pa.field("label", pa.float64()),  # 1 chosen, 0 not; of a judgement its place between the grades
        pa.field("weight", pa.float64()),
        pa.field("group", pa.int64()),  # rows of one query
        pa.field("features", pa.list_(pa.float32())),  # `examples.features`, null where there are none
    ]
)

HOLDOUT = pa.schema(
    [
        pa.field("query_id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("history_items", pa.list_(pa.string())),
        pa.field("relevant", pa.list_(pa.string())),
        pa.field(
            "gains", pa.list_(pa.float64())
        ),  # of a judgement: grade above the lowest, per relevant item; else empty
        pa.field("candidates", pa.list_(pa.string())),  # empty: the whole catalogue
        pa.field("weight", pa.float64()),
        pa.field("cluster", pa.string()),  # basket or query: rows of one cluster are not independent
        pa.field("segment", pa.string()),  # the customer's group, null where unknown
    ]
)

EVENTS = pa.schema(
    [
        pa.field("event_time", pa.timestamp("us")),
        pa.field("event_type", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("query", pa.string()),
        pa.field("item_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class HoldoutQuery:
    """One question of the held-out slice. `relevant` may name items that no candidate list has: honest misses."""

    query_id: str
    text: str
    relevant: list[str]
    weight: float
    cluster: str
    history_items: list[str] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    segment: str | None = None

    @property
    def gain(self) -> dict[str, float]:
        """By relevant item: 1, or how far its grade is above the lowest."""
        return dict(zip(self.relevant, self.gains or [1.0] * len(self.relevant), strict=True))

    @property
    def orders(self) -> bool:
        """Whether one order of its items can be better than another. Of judgements at least three items are asked for.

        Not where every candidate is relevant, as in a list of one: any order would be perfect. A relevant item that is no candidate
        is a miss all the same.
        """
        if not self.relevant:
            return False
        if self.gains:
            return len(self.candidates) >= _FEWEST_JUDGED
        return not self.candidates or not set(self.candidates).issubset(self.relevant)

    def row(self) -> dict[str, Any]:
        """As a row of HOLDOUT."""
        return {name: getattr(self, name) for name in HOLDOUT.names}


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows batch by batch; `path` appears when it is whole. Returns their number.

    Equal rows give equal bytes.
    """
    iterator = iter(rows)
    batches = iter(lambda: list(islice(iterator, _ROWS)), [])
    return write_batches(
        path, schema, (pa.RecordBatch.from_pylist(batch, schema=schema) for batch in batches)
    )


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """The same for Arrow batches."""
    written, progress = 0, Progress(logger(stage="examples"), f"writing {path.name}", "rows")
    with whole(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            written += batch.num_rows
            progress.add(batch.num_rows)
    return written


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, batch by batch."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS):
            yield from batch.to_pylist()


def read_holdout(path: Path) -> list[HoldoutQuery]:
    """The held-out slice, in file order."""
    return [HoldoutQuery(**row) for row in read_rows(path)]
