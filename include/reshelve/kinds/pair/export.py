"""The graph of a pair version: a query and item ids in, a score of each out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from reshelve.errors import DataError
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.graph import RankerGraph
from reshelve.export.layers import Layers
from reshelve.export.module import IDS, LENGTHS, MOST_CANDIDATES, Answer, RankerModule, traced
from reshelve.export.tokenizer import Rows
from reshelve.export.version import VersionBuilder
from reshelve.features.blend import Blend
from reshelve.features.features import PairFeatures
from reshelve.features.graph_tables import Places, TextTable, numbers
from reshelve.kind import Export, Inputs
from reshelve.model.trained import TrainedModel


class PairModule(RankerModule):
    """query string[1 or B], item string[B] → score float[B].

    An item id stands for its title, whose tokens are kept, so that only the query is tokenised; an id
    the catalogue does not know is taken as the text itself. `features` are made of the same strings, by the tables inside; DataError where the model reads others.
    """

    def __init__(
        self,
        model: TrainedModel,
        layers: Layers,
        tokenizer: Path,
        catalogue: PackagedCatalogue,
        features: PairFeatures | None,
    ) -> None:
        super().__init__()
        read = model.document.features
        if read and read != (features.columns if features else ()):
            raise DataError("the model reads other features", "expected the examples stage of the same run")
        self.features = features
        towers = model.document.towers
        beside = _beside(model) if features or towers else None
        titles = TextTable(catalogue.titles)
        self.titles = titles if features else None
        graph = RankerGraph(model, layers)
        self.tokenizer = model.encoder.build_tokenizer(tokenizer, model.document.max_length)
        self.table = Places(catalogue.items)
        self.kept = [numbers(rows.numpy()) for rows in self.tokenizer.tokens(titles.values)]
        scores = traced(graph.logits, IDS, LENGTHS, IDS)

        def logits(query: tf.Tensor, item: tf.Tensor) -> Answer:
            of_titles = self._item_tokens(item, Rows(*(kept.read_value() for kept in self.kept)))
            batch = self.tokenizer.pair(self.tokenizer.tokens(query), of_titles)
            read = scores(batch.ids, batch.lengths, batch.types)
            columns = []
            if features:
                place = self.table.lookup(item)
                title = tf.where(place >= 0, titles.gather(tf.maximum(place, 0)), item)
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
        self.logits = traced(logits, *inputs)
        self.serving_default = traced(serving_default, *inputs)

    def most_rows(self, name: str) -> int:
        """A query may come with each of its candidates."""
        return MOST_CANDIDATES

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


class PairExport(Export):
    """`query`, `item` → `score`."""

    def module(self, builder: VersionBuilder, model: TrainedModel, layers: Layers) -> RankerModule:
        features = builder.features
        return PairModule(model, layers, builder.tokenizer, builder.catalogue, features)

    def texts(self, inputs: Inputs, catalogue: PackagedCatalogue) -> list[str] | list[tuple[str, str]]:
        titles = dict(zip(catalogue.items, catalogue.titles, strict=True))
        return [(inputs["query"][0], titles.get(item, item)) for item in inputs["item"]]


FACET = PairExport()
