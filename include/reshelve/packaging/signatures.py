"""What a version answers: strings in, items and scores out, padding and look-ups inside.

`serving_default` and `logits` call one inner function, so the file holds the weights once.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from reshelve.packaging.catalogue import Catalogue
from reshelve.packaging.graph import Layers, RankerGraph
from reshelve.packaging.tokenizer import Batch, GraphTokenizer, Rows
from reshelve.packaging.trained import TrainedModel
from reshelve.rankers import Kind

_HISTORY = tf.TensorSpec([None], tf.string, name="history")
_QUERY_AND_ITEM = [tf.TensorSpec([None], tf.string, name=name) for name in ("query", "item")]
_IDS = tf.TensorSpec([None, None], tf.int32)
_LENGTHS = tf.TensorSpec([None], tf.int32)


class RankerModule(tf.Module):
    """What both kinds share: the tokenizer and the scored graph."""

    serving_default: tf.types.experimental.PolymorphicFunction
    logits: tf.types.experimental.PolymorphicFunction

    def __init__(self, model: TrainedModel, layers: Layers, tokenizer: Path) -> None:
        super().__init__()
        self.tokenizer = GraphTokenizer(tokenizer, model.document.max_length)
        # In a tuple, out of tf.Module's sight: what the graph needs of it becomes constants.
        self._graph = (RankerGraph(model, layers),)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """By name, for tf.saved_model.save."""
        functions = (self.serving_default, self.logits)
        return {
            name: f.get_concrete_function()
            for name, f in zip(("serving_default", "logits"), functions, strict=True)
        }


class NextItemModule(RankerModule):
    """history string[B] → the K likeliest items with their softmax probabilities."""

    def __init__(
        self, model: TrainedModel, layers: Layers, tokenizer: Path, catalogue: Catalogue, top: int
    ) -> None:
        super().__init__(model, layers, tokenizer)
        self.items, self.titles = (catalogue.items, catalogue.titles)
        self.top = min(top, len(catalogue.items))

    @tf.function(input_signature=[_IDS, _LENGTHS], autograph=False)
    def score(self, ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Logits over the catalogue: [B, C]."""
        return self._graph[0].logits(ids, lengths, None)

    @tf.function(input_signature=[_HISTORY], autograph=False)
    def logits(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        """history → logits float[B, C]."""
        batch = self.tokenizer.single(self.tokenizer.tokens(history))
        return {"logits": self.score(batch.ids, batch.lengths)}

    @tf.function(input_signature=[_HISTORY], autograph=False)
    def serving_default(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        """history → item, title string[B, K], score float[B, K], best first."""
        scores, index = tf.math.top_k(tf.nn.softmax(self.logits(history)["logits"]), self.top)
        return {
            "item": tf.gather(tf.constant(list(self.items)), index),
            "title": tf.gather(tf.constant(list(self.titles)), index),
            "score": scores,
        }


class PairModule(RankerModule):
    """query string[1 or B], item string[B] → score float[B].

    An item id stands for its title, whose tokens are kept, so that only the query is tokenised; an id
    the catalogue does not know is taken as the text itself.
    """

    def __init__(self, model: TrainedModel, layers: Layers, tokenizer: Path, catalogue: Catalogue) -> None:
        super().__init__(model, layers, tokenizer)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(catalogue.items), tf.range(len(catalogue.items), dtype=tf.int32)
            ),
            -1,
        )
        self._titles = (
            Rows(*(rows.numpy() for rows in self.tokenizer.tokens(tf.constant(catalogue.titles)))),
        )

    @tf.function(input_signature=[_IDS, _LENGTHS, _IDS], autograph=False)
    def score(self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor) -> tf.Tensor:
        """Logits: [B]."""
        return self._graph[0].logits(ids, lengths, types)

    @tf.function(input_signature=_QUERY_AND_ITEM, autograph=False)
    def logits(self, query: tf.Tensor, item: tf.Tensor) -> dict[str, tf.Tensor]:
        """query, item → logits float[B]."""
        batch = self._batch(query, item)
        return {"logits": self.score(batch.ids, batch.lengths, batch.types)}

    @tf.function(input_signature=_QUERY_AND_ITEM, autograph=False)
    def serving_default(self, query: tf.Tensor, item: tf.Tensor) -> dict[str, tf.Tensor]:
        """query, item → score float[B], the sigmoid of the logit."""
        return {"score": tf.sigmoid(self.logits(query, item)["logits"])}

    def _batch(self, query: tf.Tensor, item: tf.Tensor) -> Batch:
        return self.tokenizer.pair(self.tokenizer.tokens(query), self._item_tokens(item))

    def _item_tokens(self, item: tf.Tensor) -> Rows:
        titles = Rows(*map(tf.constant, self._titles[0]))
        index = self.table.lookup(item)
        known = index >= 0
        place = tf.maximum(index, 0)
        found = Rows(titles.values, tf.gather(titles.starts, place), tf.gather(titles.lengths, place))

        def with_texts() -> Rows:
            typed = self.tokenizer.tokens(tf.boolean_mask(item, tf.logical_not(known)))
            number = tf.maximum(tf.cumsum(tf.cast(tf.logical_not(known), tf.int32)) - 1, 0)
            return Rows(
                tf.concat([titles.values, typed.values], 0),
                tf.where(known, found.starts, tf.size(titles.values) + tf.gather(typed.starts, number)),
                tf.where(known, found.lengths, tf.gather(typed.lengths, number)),
            )

        return Rows(*tf.cond(tf.reduce_all(known), lambda: found, with_texts))


def ranker_module(
    model: TrainedModel, layers: Layers, tokenizer: Path, catalogue: Catalogue, top: int
) -> NextItemModule | PairModule:
    """The module of the model's kind."""
    if model.document.kind is Kind.NEXT_ITEM:
        return NextItemModule(model, layers, tokenizer, catalogue, top)
    return PairModule(model, layers, tokenizer, catalogue)
