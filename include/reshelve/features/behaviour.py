"""How often items were chosen where they were shown, at one instant: counts of impressions and choices, to look up.

Everything is counted from impressions and choices strictly before `as_of`. A rate is smoothed towards what is known more
surely: a query's and an item's towards that of all, that of an item under a query towards the item's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from reshelve.clickstream.remember import NEVER, remembered_names
from reshelve.config.remember import Remember
from reshelve.features.text import TextKeys
from reshelve.files import whole

Array = np.ndarray

HALF_LIVES = (np.inf, 7.0)  # days
_SMOOTHING = 30.0  # impressions that the surer rate counts for
_SMOOTHING_UNDER_QUERY = 10.0
_PARTS = "\x1f"  # between a query's key and an item: in neither


@dataclass(frozen=True)
class Impressions:
    """N impressions: query key, item, the day number of each, int64 [N], that of its choice, NEVER where there was none, and
    the one after which its query may be remembered."""

    keys: list[str]
    items: list[str]
    days: Array  # date.toordinal()
    chosen: Array
    remembered: Array

    @classmethod
    def of(
        cls,
        queries: list[str],
        items: list[str],
        days: list[date],
        chosen: list[date | None],
        customers: list[str],
        rule: Remember,
    ) -> Impressions:
        """From raw queries and who asked them; each distinct one is normalised once."""
        distinct = sorted(set(queries))
        place = {query: number for number, query in enumerate(distinct)}
        of_distinct = query_keys(distinct)
        keys = [of_distinct[place[query]] for query in queries]
        numbers = np.array([day.toordinal() for day in days], np.int64)
        known = remembered_names(keys, customers, numbers, rule)
        return cls(
            keys, items, numbers, np.array([day.toordinal() if day else NEVER for day in chosen], np.int64),
            np.array([known.get(key, NEVER) for key in keys], np.int64),
        )  # fmt: skip

    def rates(self, as_of: date) -> Rates:
        """What was known at the first instant of `as_of`."""
        past = np.flatnonzero(self.days < as_of.toordinal())
        age = (as_of.toordinal() - 1 - self.days[past]).astype(np.float64)
        weights = np.stack([2.0 ** (-age / half_life) for half_life in HALF_LIVES], axis=1)
        # What is chosen today of what was shown yesterday is not known this morning.
        shown, chosen = weights, weights * (self.chosen[past, None] < as_of.toordinal())
        overall = (chosen.sum(0) + 1.0) / (shown.sum(0) + 2.0)  # Laplace: finite of nothing
        items = [self.items[place] for place in past]
        # Items are the shop's; a query is kept only where it may be remembered.
        known = np.flatnonzero(self.remembered[past] < as_of.toordinal())
        queries = [self.keys[past[place]] for place in known]
        both = [query + _PARTS + items[place] for query, place in zip(queries, known, strict=True)]
        found: dict[str, Array] = {}
        of_items = _grouped(items, shown, chosen)
        for name, (impressions, choices) in of_items.items():
            found["item" + _PARTS + name] = _lift(impressions, choices, overall, _SMOOTHING)
        for name, counts in _grouped(queries, shown[known], chosen[known]).items():
            found["query" + _PARTS + name] = _lift(*counts, overall, _SMOOTHING)
        for name, counts in _grouped(both, shown[known], chosen[known]).items():
            impressions, choices = of_items[name.split(_PARTS)[1]]
            item_rate = (choices + _SMOOTHING * overall) / (impressions + _SMOOTHING)
            found["both" + _PARTS + name] = _lift(*counts, item_rate, _SMOOTHING_UNDER_QUERY)
        names = sorted(found)
        values = np.stack([found[name] for name in names]) if names else np.zeros((0, len(HALF_LIVES) + 1))
        return Rates(names, values.astype(np.float32))


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
        names = rates.names or ["\n"]  # a table needs an entry; no key holds a line feed
        none = len(rates.names)
        self.places = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(names), tf.range(len(names), dtype=tf.int32)),
            none,
        )
        self.values = tf.constant(
            np.append(rates.values, np.zeros((1, len(HALF_LIVES) + 1), np.float32), axis=0)
        )

    def features(self, queries: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Finite for every query and item."""
        keys = tf.broadcast_to(self.text.compact(queries), tf.shape(items))
        names = (
            tf.strings.join(["item", items], _PARTS), tf.strings.join(["query", keys], _PARTS),
            tf.strings.join(["both", keys, items], _PARTS),
        )  # fmt: skip
        return tf.concat([tf.gather(self.values, self.places.lookup(name)) for name in names], axis=1)


def query_keys(queries: list[str]) -> list[str]:
    """The keys under which queries are remembered, in order."""
    if not queries:
        return []
    return [key.decode() for key in TextKeys().compact(tf.constant(queries)).numpy()]


def _grouped(names: list[str], shown: Array, chosen: Array) -> dict[str, tuple[Array, Array]]:
    """Sums [H] of both, by name."""
    distinct, places = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    sums = [np.zeros((len(distinct), shown.shape[1])) for _ in range(2)]
    for total, values in zip(sums, (shown, chosen), strict=True):
        np.add.at(total, places, values)
    return {str(name): (sums[0][place], sums[1][place]) for place, name in enumerate(distinct)}


def _lift(shown: Array, chosen: Array, towards: Array, strength: float) -> Array:
    """log of the smoothed rate [H] over `towards` [H]; and log(1 + impressions)."""
    rate = (chosen + strength * towards) / (shown + strength)
    return np.append(np.log(rate / towards), np.log1p(shown[0]))
