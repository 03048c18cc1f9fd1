"""What a version answers: strings in, items and scores out, padding and look-ups inside.

Each function is traced exactly once and the next one calls what was traced: scores ← logits ←
serving_default. Left to tf.function, each would be traced, and written, twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from reshelve.errors import DataError
from reshelve.memory.blend import Blend
from reshelve.memory.evidence import SearchEvidence
from reshelve.memory.features import PairFeatures
from reshelve.memory.stage import read_blend
from reshelve.memory.tables import SearchTables
from reshelve.packaging.catalogue import Catalogue
from reshelve.packaging.graph import Layers, RankerGraph
from reshelve.packaging.held import HeldItems
from reshelve.packaging.tokenizer import GraphTokenizer, Rows
from reshelve.packaging.trained import TrainedModel
from reshelve.rankers import Kind

Answer = dict[str, tf.Tensor]

_IDS = tf.TensorSpec([None, None], tf.int32)
_LENGTHS = tf.TensorSpec([None], tf.int32)


class NextItemModule(tf.Module):
    """history string[B] → the K likeliest items with their softmax probabilities.

    Where nothing is to `repeat`, what the history holds has no chance: it is answered after all others, if at all.
    """

    def __init__(
        self,
        model: TrainedModel,
        layers: Layers,
        tokenizer: Path,
        catalogue: Catalogue,
        top: int,
        repeat: bool = True,
    ) -> None:
        super().__init__()
        self.held = None if repeat else HeldItems(catalogue)
        graph = RankerGraph(model, layers)
        self.tokenizer = GraphTokenizer(tokenizer, model.document.max_length)
        scores = _traced(lambda ids, lengths: graph.logits(ids, lengths, None), _IDS, _LENGTHS)

        def encoder(history: tf.Tensor) -> Answer:
            batch = self.tokenizer.single(self.tokenizer.tokens(history))
            return {"logits": scores(batch.ids, batch.lengths)}

        def logits(history: tf.Tensor) -> Answer:
            read = self.encoder(history)["logits"]
            return {"logits": self.held.left_out(read, history) if self.held else read}

        def serving_default(history: tf.Tensor) -> Answer:
            return _best(self.logits(history)["logits"], catalogue, top)

        history = tf.TensorSpec([None], tf.string, name="history")
        self.encoder = _traced(encoder, history)
        self.logits = _traced(logits, history) if self.held else self.encoder
        self.serving_default = _traced(serving_default, history)


class SearchModule(tf.Module):
    """query string[B] → the K best items of the catalogue; and the score of items that the caller names.

    What the shop remembers travels inside, so that one version is one memory. The transformer is in the graph only
    where the blend found it worth its time.
    """

    def __init__(
        self,
        model: TrainedModel,
        layers: Layers,
        tokenizer: Path,
        catalogue: Catalogue,
        top: int,
        blend: Path,
    ) -> None:
        super().__init__()
        graph = RankerGraph(model, layers)
        document, fitted = read_blend(blend)
        self.evidence = SearchEvidence(SearchTables.read(blend))
        self.tokenizer = GraphTokenizer(tokenizer, model.document.max_length)
        self.table = _places(catalogue.items)
        scores = _traced(lambda ids, lengths: graph.logits(ids, lengths, None), _IDS, _LENGTHS)
        popularity = tf.constant(model["items.bias"])

        def encoder(query: tf.Tensor) -> Answer:
            batch = self.tokenizer.single(self.tokenizer.tokens(query))
            return {"logits": scores(batch.ids, batch.lengths)}

        def logits(query: tf.Tensor) -> Answer:
            features = self.evidence.features(query)
            if document.encoder:
                read = self.encoder(query)["logits"] - popularity
                features = tf.concat([features, read[..., tf.newaxis]], axis=-1)
            return {"logits": fitted.scores(features)}

        def serving_default(query: tf.Tensor) -> Answer:
            return _best(self.logits(query)["logits"], catalogue, top)

        def score(query: tf.Tensor, item: tf.Tensor) -> Answer:
            # One query, encoded once, whatever the number of items. An unknown item has no chance.
            place = self.table.lookup(item)
            likely = tf.nn.softmax(self.logits(query[:1])["logits"])[0]
            return {"score": tf.where(place >= 0, tf.gather(likely, tf.maximum(place, 0)), 0.0)}

        query = tf.TensorSpec([None], tf.string, name="query")
        self.encoder = _traced(encoder, query)
        self.logits = _traced(logits, query)
        self.serving_default = _traced(serving_default, query)
        self.score = _traced(score, query, tf.TensorSpec([None], tf.string, name="item"))


class PairModule(tf.Module):
    """query string[1 or B], item string[B] → score float[B].

    An item id stands for its title, whose tokens are kept, so that only the query is tokenised; an id
    the catalogue does not know is taken as the text itself. `features` are made of the same strings, by the tables inside.
    """

    def __init__(
        self,
        model: TrainedModel,
        layers: Layers,
        tokenizer: Path,
        catalogue: Catalogue,
        features: PairFeatures | None,
    ) -> None:
        super().__init__()
        self.features = features
        towers = model.document.towers
        beside = _beside(model) if features or towers else None
        texts = tf.constant(catalogue.titles)
        graph = RankerGraph(model, layers)
        self.tokenizer = GraphTokenizer(tokenizer, model.document.max_length)
        self.table = _places(catalogue.items)
        kept = [rows.numpy() for rows in self.tokenizer.tokens(tf.constant(catalogue.titles))]
        scores = _traced(graph.logits, _IDS, _LENGTHS, _IDS)

        def logits(query: tf.Tensor, item: tf.Tensor) -> Answer:
            titles = self._item_tokens(item, Rows(*map(tf.constant, kept)))
            batch = self.tokenizer.pair(self.tokenizer.tokens(query), titles)
            read = scores(batch.ids, batch.lengths, batch.types)
            columns = []
            if features:
                place = self.table.lookup(item)
                title = tf.where(place >= 0, tf.gather(texts, tf.maximum(place, 0)), item)
                columns.append(features.features(query, item, title))
            if towers:
                columns.append(read[:, tf.newaxis])
            if beside:
                added = beside.scores(tf.concat(columns, axis=1))
                read = added if towers else read + added
            return {"logits": read}

        def serving_default(query: tf.Tensor, item: tf.Tensor) -> Answer:
            return {"score": tf.sigmoid(self.logits(query, item)["logits"])}

        inputs = [tf.TensorSpec([None], tf.string, name=name) for name in ("query", "item")]
        self.logits = _traced(logits, *inputs)
        self.serving_default = _traced(serving_default, *inputs)

    def _item_tokens(self, item: tf.Tensor, titles: Rows) -> Rows:
        index = self.table.lookup(item)
        known = index >= 0
        place = tf.maximum(index, 0)
        found = Rows(titles.values, tf.gather(titles.starts, place), tf.gather(titles.lengths, place))

        def with_texts() -> Rows:
            unknown = tf.logical_not(known)
            typed = self.tokenizer.tokens(tf.boolean_mask(item, unknown))
            number = tf.maximum(tf.cumsum(tf.cast(unknown, tf.int32)) - 1, 0)
            return Rows(
                tf.concat([titles.values, typed.values], 0),
                tf.where(known, found.starts, tf.size(titles.values) + tf.gather(typed.starts, number)),
                tf.where(known, found.lengths, tf.gather(typed.lengths, number)),
            )

        return Rows(*tf.cond(tf.reduce_all(known), lambda: found, with_texts))


def _beside(model: TrainedModel) -> Blend:
    """What the features add to a pair's logit, as it was trained."""
    names = ("mean", "deviation", "linear.weight", "hidden.weight", "hidden.bias", "output.weight")
    mean, deviation, linear, hidden, bias, output = (model[f"beside.{name}"] for name in names)
    return Blend(mean, deviation, linear[0], np.ascontiguousarray(hidden.T), bias, output[0])


def _traced(
    function: Callable[..., object], *inputs: tf.TensorSpec
) -> tf.types.experimental.ConcreteFunction:
    return tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()


def _places(items: list[str]) -> tf.lookup.StaticHashTable:
    """Item id → its place in the catalogue, -1 where it is not there."""
    places = tf.range(len(items), dtype=tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(items), places), -1)


def _best(logits: tf.Tensor, catalogue: Catalogue, top: int) -> Answer:
    score, index = tf.math.top_k(tf.nn.softmax(logits), min(top, len(catalogue.items)))
    item, title = (tf.gather(tf.constant(texts), index) for texts in (catalogue.items, catalogue.titles))
    return {"item": item, "title": title, "score": score}


def signatures(module: Module) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """By name, for tf.saved_model.save."""
    found = {"serving_default": module.serving_default, "logits": module.logits}
    return {**found, "score": module.score} if isinstance(module, SearchModule) else found


def ranker_module(
    model: TrainedModel,
    layers: Layers,
    tokenizer: Path,
    catalogue: Catalogue,
    top: int,
    blend: Path | None = None,
    features: PairFeatures | None = None,
    repeat: bool = True,
) -> Module:
    """The module of the model's kind; `blend` is the directory of a search ranker's blend stage, `repeat` as in the ranker file.

    Raises DataError where a model reads features that it is not given.
    """
    if model.document.kind is Kind.SEARCH:
        if blend is None:
            raise DataError("a search ranker needs its blend", "expected the blend stage before this one")
        return SearchModule(model, layers, tokenizer, catalogue, top, blend)
    if model.document.kind is Kind.NEXT_ITEM:
        return NextItemModule(model, layers, tokenizer, catalogue, top, repeat)
    if model.document.features and model.document.features != (features.columns if features else ()):
        raise DataError("the model reads other features", "expected the examples stage of the same run")
    return PairModule(model, layers, tokenizer, catalogue, features)


Module = NextItemModule | SearchModule | PairModule
