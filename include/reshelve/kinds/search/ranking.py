"""How a search version orders items for a query: all of a small catalogue, the candidates of a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from reshelve.features.asked import AskedQueries
from reshelve.features.blend import Blend
from reshelve.features.candidates import NEVER, CandidateSearch, narrows
from reshelve.features.evidence import NamedEvidence, NamedSums, SearchEvidence
from reshelve.features.tables import SearchTables


class EncoderScores(NamedTuple):
    """What the transformer makes of items beyond how popular they are.

    `read`: string queries [B] → what is read of them; `of_all`: that → [B, C]; `of_items`: that and places int32 [B, N] → [B, N].
    """

    read: Callable[[tf.Tensor], tf.Tensor]
    of_all: Callable[[tf.Tensor], tf.Tensor]
    of_items: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class RankedItems(NamedTuple):
    """`places` int32 [B, N], their `logits`, and the log of how many items each stands for (`features.candidates`)."""

    places: tf.Tensor
    logits: tf.Tensor
    stands_for: tf.Tensor

    @property
    def found(self) -> tf.Tensor:
        """The logits, NEVER where no item is."""
        return tf.where(self.stands_for > NEVER / 2, self.logits, NEVER)

    @property
    def total(self) -> tf.Tensor:
        """The log of what a softmax over the whole catalogue divides by: [B, 1]."""
        return tf.reduce_logsumexp(self.logits + self.stands_for, axis=1, keepdims=True)


class WholeCatalogue(tf.Module):
    """Every item is looked at, so that nothing is missed."""

    def __init__(self, tables: SearchTables, blend: Blend, encoder: EncoderScores | None) -> None:
        super().__init__()
        self.evidence = SearchEvidence(tables)
        self._blend, self._encoder = blend, encoder

    def ranked(self, query: tf.Tensor) -> RankedItems:
        """Of string `query` [B]."""
        features = self.evidence.features(query)
        if self._encoder is not None:
            read = self._encoder.of_all(self._encoder.read(query))
            features = tf.concat([features, read[..., tf.newaxis]], axis=-1)
        logits = self._blend.scores(features)
        places = tf.broadcast_to(tf.range(self.evidence.items), tf.shape(logits))
        return RankedItems(places, logits, tf.zeros_like(logits))

    def with_named(self, query: tf.Tensor, places: tf.Tensor) -> tuple[RankedItems, tf.Tensor]:
        """`ranked`, and the logits of `places` int32 [B, n]."""
        ranked = self.ranked(query)
        return ranked, tf.gather(ranked.logits, places, batch_dims=1)


class OfCandidates(tf.Module):
    """Candidates first, then the same features and network for them alone."""

    def __init__(
        self, tables: SearchTables, blend: Blend, encoder: EncoderScores | None, most: int, least: int
    ) -> None:
        super().__init__()
        self.evidence = NamedEvidence(tables)
        self.candidates = CandidateSearch(tables, most, least)
        self._blend, self._encoder = blend, encoder

    def ranked(self, query: tf.Tensor) -> RankedItems:
        """Of string `query` [B]."""
        asked, found = self.evidence.read(query)
        return self._ranked(asked, found, self._read(query))

    def with_named(self, query: tf.Tensor, places: tf.Tensor) -> tuple[RankedItems, tf.Tensor]:
        """`ranked`, and the logits of `places` int32 [B, n], candidates or not."""
        asked, found = self.evidence.read(query)
        read = self._read(query)
        return self._ranked(asked, found, read), self._logits(asked, found, read, places)

    def _read(self, query: tf.Tensor) -> tf.Tensor | None:
        return None if self._encoder is None else self._encoder.read(query)

    def _ranked(self, asked: AskedQueries, found: NamedSums, read: tf.Tensor | None) -> RankedItems:
        places, stands_for = self.candidates.search(asked, found)
        return RankedItems(places, self._logits(asked, found, read, places), stands_for)

    def _logits(
        self, asked: AskedQueries, found: NamedSums, read: tf.Tensor | None, places: tf.Tensor
    ) -> tf.Tensor:
        features = self.evidence.features(asked, found, places)
        if self._encoder is not None and read is not None:
            of_places = self._encoder.of_items(read, places)
            features = tf.concat([features, of_places[..., tf.newaxis]], axis=-1)
        return self._blend.scores(features)


def ranking(
    tables: SearchTables, blend: Blend, encoder: EncoderScores | None, most: int, least: int
) -> WholeCatalogue | OfCandidates:
    """By the catalogue's size. `most`: candidates; `least`: items that an answer has."""
    if narrows(len(tables.popularity), most):
        return OfCandidates(tables, blend, encoder, most, least)
    return WholeCatalogue(tables, blend, encoder)
