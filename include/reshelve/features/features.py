"""What a pair model reads beside its texts, as `examples.features` names it: how they overlap, what was chosen, the place.

One module makes the features of training examples, and a version carries the same one with the tables of its own night.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from reshelve.features.behaviour import Behaviour, Rates
from reshelve.features.columns import feature_columns
from reshelve.features.overlap import Overlap, Rarity

_RARITY = "overlap.safetensors"
_RATES = "behaviour.parquet"
Names = Sequence[str]


class PairFeatures(tf.Module):
    """`features`: queries [B] or [1], item ids [B] and their texts [B] → float32 [B, F], as `feature_columns` names them."""

    def __init__(self, names: Names, rarity: Rarity | None, rates: Rates | None) -> None:
        super().__init__()
        self.names = tuple(names)
        self.overlap = Overlap(rarity) if rarity else None
        self.behaviour = Behaviour(rates) if rates else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The last axis."""
        return feature_columns(self.names)

    def features(
        self, queries: tf.Tensor, items: tf.Tensor, texts: tf.Tensor, positions: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Positions count from 1, float32 [B]; without them, as when serving, all are at the top."""
        parts = []
        if self.overlap:
            parts.append(self.overlap.features(queries, texts))
        if self.behaviour:
            parts.append(self.behaviour.features(queries, items))
        if "position" in self.names:
            top = tf.ones([tf.size(items)]) if positions is None else tf.maximum(positions, 1.0)
            parts.append(tf.math.log(top)[:, tf.newaxis])
        return tf.concat(parts, axis=1)


def write_tables(directory: Path, rarity: Rarity | None, rates: Rates | None) -> None:
    """The tables that a version carries."""
    if rarity:
        rarity.write(directory / _RARITY)
    if rates:
        rates.write(directory / _RATES)


def read_features(directory: Path, names: Names) -> PairFeatures:
    """The features over the tables in `directory`, an examples stage's."""
    return PairFeatures(
        names,
        Rarity.read(directory / _RARITY) if "text" in names else None,
        Rates.read(directory / _RATES) if "behaviour" in names else None,
    )
