"""How often items were chosen where they were shown, at one instant: rates to look up, as `impression_counts` counts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from reshelve.features.graph_tables import Places, numbers
from reshelve.features.text import TextKeys
from reshelve.files import whole

Array = np.ndarray

HALF_LIVES = (np.inf, 7.0)  # days
PARTS = "\x1f"  # between a query's key and an item: in neither


@dataclass(frozen=True)
class Rates:
    """Features by name: log of the rate over what it is smoothed towards, per half-life, and log of all impressions [N, 3]."""

    names: list[str]
    values: Array

    def write(self, path: Path) -> None:
        """As Parquet."""
        columns = {f"value_{number}": self.values[:, number] for number in range(self.values.shape[1])}
        with whole(path) as partial:
            pq.write_table(pa.table({"name": pa.array(self.names, pa.string()), **columns}), partial)

    @classmethod
    def read(cls, path: Path) -> Rates:
        """What `write` wrote."""
        table = pq.read_table(path)
        values = np.stack([table[name].to_numpy() for name in table.column_names[1:]], axis=1)
        return cls(table["name"].to_pylist(), values.astype(np.float32))


class Behaviour(tf.Module):
    """`features`: queries [B] or [1] and item ids [B] → float32 [B, F], the columns of BEHAVIOUR; 0 of what was never shown."""

    def __init__(self, rates: Rates) -> None:
        super().__init__()
        self.text = TextKeys()
        self.places = Places(rates.names, unknown=len(rates.names))
        self.values = numbers(np.append(rates.values, np.zeros((1, len(HALF_LIVES) + 1), np.float32), axis=0))

    def features(self, queries: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Finite for every query and item."""
        keys = tf.broadcast_to(self.text.compact(queries), tf.shape(items))
        names = (
            tf.strings.join(["item", items], PARTS), tf.strings.join(["query", keys], PARTS),
            tf.strings.join(["both", keys, items], PARTS),
        )  # fmt: skip
        return tf.concat([tf.gather(self.values, self.places.lookup(name)) for name in names], axis=1)


def query_keys(queries: list[str]) -> list[str]:
    """The keys under which queries are remembered, in order."""
    if not queries:
        return []
    return [key.decode() for key in TextKeys().compact(tf.constant(queries)).numpy()]
