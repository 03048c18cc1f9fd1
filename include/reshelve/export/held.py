"""What a history holds already, left out of an answer: the graph looks its titles up as they are written."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.features.graph_tables import Places, numbers

_NEVER = -1e9  # a logit whose chance is 0; not -inf: where everything is held the softmax stays a number


class HeldItems(tf.Module):
    """Titles of a history → the places of their items. Upper and lower case and the number of blanks do not matter.

    An item is found by every title it was seen with, and by its id; a title of several items means all of them. A title that itself holds
    the separator is found as well.
    """

    def __init__(self, catalogue: PackagedCatalogue) -> None:
        super().__init__()
        names = [
            (name, place)
            for place, (item, title, others) in enumerate(
                zip(catalogue.items, catalogue.titles, catalogue.names, strict=True)
            )
            for name in (item, title, *others)  # an event without a title is written as its item
        ]
        written = _written(tf.constant([name for name, _ in names])).numpy().tolist()
        places: dict[bytes, set[int]] = {}
        for name, (_, place) in zip(written, names, strict=True):
            places.setdefault(name, set()).add(place)
        self._rows = Places(list(places), unknown=len(places))
        sizes = [len(found) for found in places.values()] + [0]  # the last row: a title that nobody knows
        self._splits = numbers(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        self._places = numbers(
            np.array([place for found in places.values() for place in sorted(found)], np.int32)
        )
        self._pieces = sorted({name.count(b";") + 1 for name in places})
        self._items = len(catalogue.items)

    def left_out(self, logits: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """`logits` [batch, catalogue] with no chance for what `history` [batch] holds."""
        pieces = tf.strings.split(_written(history), ";")
        titles = tf.strings.ngrams(pieces, tuple(self._pieces), separator=";")
        items = tf.RaggedTensor.from_row_splits(
            self._places.read_value(), self._splits.read_value(), validate=False
        )
        held = tf.gather(items, self._rows.lookup(titles.values))
        row = tf.gather(titles.value_rowids(), held.value_rowids())
        index = tf.stack([tf.cast(row, tf.int32), held.values], axis=1)
        shape = tf.stack([tf.shape(history)[0], self._items])
        times = tf.scatter_nd(index, tf.ones_like(held.values), shape)
        return tf.where(times > 0, _NEVER, logits)


def _written(texts: tf.Tensor) -> tf.Tensor:
    """Titles and histories in one spelling: lower case, single blanks, none around the separator."""
    lower = tf.strings.lower(texts, encoding="utf-8")
    single = tf.strings.strip(tf.strings.regex_replace(lower, r"[\s\p{Z}]+", " "))
    return tf.strings.regex_replace(single, " ?; ?", ";")
