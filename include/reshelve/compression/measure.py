"""What a compressed graph costs in agreement and gives in time, beside the float one."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from reshelve.export.graph import RankerGraph
from reshelve.export.layers import FloatLayers
from reshelve.export.tokenizer import TokenBatch
from reshelve.model.trained import Array, TrainedModel
from reshelve.statistics.correlation import spearman

Scorer = Callable[[TokenBatch], Array]


@dataclass(frozen=True)
class Agreement:
    """How alike two models score: means over the `questions` that order something, 1 is equal.

    Where no question does, of all scores together, and `questions` is 0; None where these order nothing either.
    """

    spearman: float | None
    pearson: float | None
    questions: int = 1


@dataclass(frozen=True)
class Latency:
    """Medians of runs taken in turn, in milliseconds."""

    batch: int
    length: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """Below 1: faster."""
        return self.after / self.before


class GraphScorer:
    """The graph in `layers` as a function of a batch, in a session: as a model server runs it, the encoder's weights constant.

    It holds the weights several times over until its context ends. `threads` within one operation; 0: TensorFlow decides.
    """

    def __init__(self, model: TrainedModel, layers: FloatLayers, threads: int = 0) -> None:
        graph = tf.Graph()
        with graph.as_default():
            ids, types = (tf.compat.v1.placeholder(tf.int32, [None, None]) for _ in range(2))
            lengths = tf.compat.v1.placeholder(tf.int32, [None])
            paired = model.document.items is None  # two texts
            self._logits = RankerGraph(model, layers).logits(ids, lengths, types if paired else None)
        self._inputs = ids, lengths, types
        self._session = tf.compat.v1.Session(
            graph=graph, config=tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
        )
        layers.fill(self._session)

    def __call__(self, batch: TokenBatch) -> Array:
        kinds = np.zeros_like(batch.ids) if batch.types is None else batch.types
        given = (batch.ids, batch.lengths, kinds)
        found: Array = self._session.run(self._logits, dict(zip(self._inputs, given, strict=True)))
        return found

    def __enter__(self) -> GraphScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        del self._session, self._logits, self._inputs
        gc.collect()  # a graph and its operations refer to each other, and hold what was in it


def agreement(before: Sequence[Array], after: Sequence[Array]) -> Agreement:
    """Of scores per question: `before[i]` and `after[i]` are [items].

    A question that ordered nothing before, as one of a single item, is left out. One whose order is lost, all scores being
    equal after, counts as 0.
    """
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if len(b) > 1 and np.ptp(b) > 0]
    counted = len(pairs)
    if not pairs and before:
        together = np.concatenate(before), np.concatenate(after)
        pairs = [together] if len(together[0]) > 1 and np.ptp(together[0]) > 0 else []
    if not pairs:
        return Agreement(None, None, 0)
    ranks = [spearman(b, a) or 0.0 for b, a in pairs]
    pearson = [float(np.corrcoef(b, a)[0, 1]) if np.ptp(a) > 0 else 0.0 for b, a in pairs]
    return Agreement(round(statistics.fmean(ranks), 5), round(statistics.fmean(pearson), 5), counted)


def drawn_request(batch: int, length: int, vocabulary: int, left: int | None = None) -> TokenBatch:
    """Rows of so many tokens drawn at random. Of pairs the first `left` are one query's, the same in every row."""
    random = np.random.default_rng(0)
    ids = random.integers(0, vocabulary, (batch, length)).astype(np.int32)
    types = None
    if left is not None:
        ids[:, :left] = ids[:1, :left]
        types = np.broadcast_to(np.arange(length) >= left, ids.shape).astype(np.int32)
    return TokenBatch(ids, np.full(batch, length, np.int32), types)


def latency(before: Scorer, after: Scorer, inputs: TokenBatch, rounds: int) -> Latency:
    """Run both in turn on the same batch, so that what else the machine does hits both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for scored, taken in zip((before, after), times, strict=True):
            start = time.perf_counter()
            scored(inputs)
            if number:  # the first round traces and packs weights
                taken.append((time.perf_counter() - start) * 1000)
    return Latency(*inputs.ids.shape, *(round(statistics.median(taken), 3) for taken in times))
