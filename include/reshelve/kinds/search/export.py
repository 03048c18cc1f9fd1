"""The graph of a search version: a query in, the best items of the catalogue out, or the scores of named ones."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.graph import RankerGraph
from reshelve.export.layers import Layers
from reshelve.export.module import IDS, LENGTHS, Answer, Function, RankerModule, best, places, traced
from reshelve.export.version import VersionBuilder
from reshelve.features.evidence import SearchEvidence
from reshelve.features.tables import SearchTables
from reshelve.kind import Export, Inputs
from reshelve.kinds.search.blend_stage import read_blend
from reshelve.model.trained import TrainedModel


class SearchModule(RankerModule):
    """query string[B] → the K best items of the catalogue; and the score of items that the caller names.

    What the shop remembers travels inside, so that one version is one memory. The transformer is in the graph only
    where the blend found it worth its time.
    """

    def __init__(
        self,
        model: TrainedModel,
        layers: Layers,
        tokenizer: Path,
        catalogue: PackagedCatalogue,
        top: int,
        blend: Path,
    ) -> None:
        super().__init__()
        graph = RankerGraph(model, layers)
        document, fitted = read_blend(blend)
        self.evidence = SearchEvidence(SearchTables.read(blend))
        self.tokenizer = model.encoder.build_tokenizer(tokenizer, model.document.max_length)
        self.table = places(catalogue.items)
        popularity = tf.constant(model["items.bias"])
        titles, vectors = graph.titles, None
        if titles is None:
            scores = traced(lambda ids, lengths: graph.logits(ids, lengths, None), IDS, LENGTHS)
        else:  # the encoder is traced once, and so held once
            vectors = traced(
                lambda ids, lengths: titles.vector(graph.pooled(ids, lengths, None)), IDS, LENGTHS
            )
            scores = traced(
                lambda ids, lengths: titles.logits(vectors(ids, lengths)) + popularity, IDS, LENGTHS
            )

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
            return best(self.logits(query)["logits"], catalogue, top)

        def score(query: tf.Tensor, item: tf.Tensor) -> Answer:
            # One query, encoded once, whatever the number of items. An unknown item has no chance.
            place = self.table.lookup(item)
            likely = tf.nn.softmax(self.logits(query[:1])["logits"])[0]
            return {"score": tf.where(place >= 0, tf.gather(likely, tf.maximum(place, 0)), 0.0)}

        def vector(query: tf.Tensor) -> Answer:
            assert vectors is not None  # else it is not traced
            batch = self.tokenizer.single(self.tokenizer.tokens(query))
            return {"vector": vectors(batch.ids, batch.lengths)}

        query = tf.TensorSpec([None], tf.string, name="query")
        self.encoder = traced(encoder, query)
        self.logits = traced(logits, query)
        self.serving_default = traced(serving_default, query)
        self.score = traced(score, query, tf.TensorSpec([None], tf.string, name="item"))
        self.vector = None if vectors is None else traced(vector, query)

    @property
    def trained(self) -> Function:
        return self.encoder

    @property
    def signatures(self) -> dict[str, Function]:
        found = {**super().signatures, "score": self.score}
        return found if self.vector is None else {**found, "vector": self.vector}


class SearchExport(Export):
    """`query` → `item`, `title`, `score`; signature `score`: `query`, `item` → `score`; with `model.head: titles` also `vector`."""

    def module(self, builder: VersionBuilder, model: TrainedModel, layers: Layers) -> RankerModule:
        blend = builder.run.stage("blend").files()
        top = builder.run.ranker.release.top
        return SearchModule(model, layers, builder.tokenizer, builder.catalogue, top, blend)

    def texts(self, inputs: Inputs, catalogue: PackagedCatalogue) -> list[str] | list[tuple[str, str]]:
        return inputs["query"]


FACET = SearchExport()
