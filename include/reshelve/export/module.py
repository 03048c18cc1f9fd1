"""What every version answers: strings in, items or scores out, padding and look-ups inside. A kind's graph is in its folder.

Each function is traced exactly once and the next one calls what was traced: scores ← logits ←
serving_default. Left to tf.function, each would be traced, and written, twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.tokenizer import GraphTokenizer
from reshelve.features.features import PairFeatures
from reshelve.features.graph_tables import TextTable
from reshelve.kind import Inputs

Answer = dict[str, tf.Tensor]
Function = Callable[..., Any]  # a concrete function

IDS = tf.TensorSpec([None, None], tf.int32)
MOST_QUESTIONS, MOST_CANDIDATES = 64, 1024
CELLS = 2**31 - 1  # numbered by 32 bits
LENGTHS = tf.TensorSpec([None], tf.int32)


class RankerModule(tf.Module):
    """A version's graph. `logits` and `serving_default` are its signatures, unless a kind has more."""

    tokenizer: GraphTokenizer
    logits: Function
    serving_default: Function
    features: PairFeatures | None = None  # what the model reads beside the texts

    def most_rows(self, name: str) -> int:
        """Rows of one input that a request may have, where the ranker file has no `release.max_rows`."""
        return MOST_CANDIDATES if name == "item" else MOST_QUESTIONS

    def rows_that_fit(self, name: str) -> int:
        """Rows of one input whose cells (of a row and a column) the graph can number, whatever the ranker file has."""
        return CELLS

    def candidates_found(self, inputs: Inputs) -> dict[str, Any] | None:
        """How much of the exhaustive answer is among the candidates, where it answers from candidates."""
        return None

    @property
    def trained(self) -> Function:
        """What torch knows: the logits as they were trained, before anything that TensorFlow alone adds."""
        return self.logits

    @property
    def signatures(self) -> dict[str, Function]:
        """By name, for tf.saved_model.save."""
        return {"serving_default": self.serving_default, "logits": self.logits}


def traced(function: Callable[..., object], *inputs: tf.TensorSpec) -> Function:
    """`function` as a graph of these inputs."""
    return tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()


class CatalogueTexts(tf.Module):
    """What answers are made of: the catalogue's items and their titles. A module that asks it has to hold it."""

    def __init__(self, catalogue: PackagedCatalogue) -> None:
        super().__init__()
        self.items = TextTable(catalogue.items)
        self.titles = TextTable(catalogue.titles)

    def best(self, logits: tf.Tensor, top: int) -> Answer:
        """The `top` likeliest items of each row of `logits` [B, C]: item, title and score [B, K]."""
        score, index = tf.math.top_k(tf.nn.softmax(logits), min(top, len(self.items)))
        return {"item": self.items.gather(index), "title": self.titles.gather(index), "score": score}
