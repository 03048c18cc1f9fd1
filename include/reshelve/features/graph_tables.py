"""What grows with the catalogue or with what is remembered, as variables of a version: numbers, texts, and places of texts.

A constant is part of the graph, which is one protobuf message of at most 2 GB. A variable is in a file of its own, which a
server reads before it fills tables. Modules have to hold what they use of these as attributes, so that it is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.lookup_ops import TableInitializerBase

from reshelve.errors import DataError

Keys = Sequence[str] | Sequence[bytes]


def numbers(array: np.ndarray[Any, Any]) -> tf.Variable:
    """An array as a variable of its shape and type."""
    return tf.Variable(tf.constant(array), trainable=False)


class TextTable(tf.Module):
    """Byte strings [n]; of `str` their UTF-8."""

    def __init__(self, texts: Keys) -> None:
        super().__init__()
        self.values = numbers(_bytes(texts))

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        """The texts at integer `places`, in their shape; each at least 0 and below n."""
        return tf.gather(self.values, places)


class Places(tf.Module):
    """Text → its place in `keys`, int32; `unknown` where it is not there. Byte strings are told apart exactly.

    `keys` that are TextTable already are shared, not held twice. Raises DataError where one is there twice.
    """

    def __init__(self, keys: TextTable | Keys, unknown: int = -1) -> None:
        super().__init__()
        self.keys = keys if isinstance(keys, TextTable) else TextTable(keys)
        self.unknown = unknown
        values = self.keys.values.numpy()
        if len(set(values.tolist())) < len(values):
            raise DataError("a table has a key twice", f"expected each of {len(values)} keys once")
        # A table that is filled with nothing counts as not filled, and cannot be asked.
        self._table = tf.lookup.StaticHashTable(_FromVariable(self.keys), unknown) if len(values) else None

    def __len__(self) -> int:
        return len(self.keys)

    def lookup(self, texts: tf.Tensor) -> tf.Tensor:
        """Places of string `texts` of any shape, in their shape."""
        if self._table is None:
            return tf.fill(tf.shape(texts), self.unknown)
        return self._table.lookup(texts)


class _FromVariable(TableInitializerBase):
    """Fills a table at the start of a version, after its variables were restored: the keys and, as values, their places."""

    def __init__(self, keys: TextTable) -> None:
        super().__init__(tf.string, tf.int32)
        self._texts = keys

    def initialize(self, table: Any) -> tf.Operation:
        keys = self._texts.values.read_value()
        return tf.raw_ops.LookupTableImportV2(
            table_handle=table.resource_handle, keys=keys, values=tf.range(tf.size(keys))
        )


def _bytes(texts: Keys) -> np.ndarray[Any, Any]:
    """As objects: an array of fixed width would lose NULs at an end."""
    found = np.empty(len(texts), object)
    found[:] = [text.encode() if isinstance(text, str) else text for text in texts]
    return found
