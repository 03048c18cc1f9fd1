"""The graph of a search version: a query in, the best items of the catalogue out, or the scores of named ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.graph import RankerGraph
from reshelve.export.layers import Layers
from reshelve.export.module import CELLS, IDS, LENGTHS, Answer, CatalogueTexts, Function, RankerModule, traced
from reshelve.export.version import VersionBuilder
from reshelve.features.candidates import NEVER, narrows
from reshelve.features.graph_tables import Places
from reshelve.features.tables import SearchTables
from reshelve.kind import Export, Inputs
from reshelve.kinds.search.blend_stage import read_blend
from reshelve.kinds.search.candidate_recall import candidate_recall
from reshelve.kinds.search.ranking import EncoderScores, OfCandidates, RankedItems, ranking
from reshelve.model.trained import TrainedModel

_GRAMS_OF_TITLE = 1024  # at most, filled up


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
        candidates: int,
    ) -> None:
        super().__init__()
        self.layers = layers
        graph = RankerGraph(model, layers)
        document, fitted = read_blend(blend)
        self.tokenizer = model.encoder.build_tokenizer(tokenizer, model.document.max_length)
        self.texts = CatalogueTexts(catalogue)
        self.table = Places(self.texts.items)
        titles, vectors = graph.titles, None

        def popularity() -> tf.Tensor:
            return layers.weight("items.bias", model["items.bias"])

        if titles is None:
            scores = traced(lambda ids, lengths: graph.logits(ids, lengths, None), IDS, LENGTHS)
        else:  # the encoder is traced once, and so held once
            vectors = traced(
                lambda ids, lengths: titles.vector(graph.pooled(ids, lengths, None)), IDS, LENGTHS
            )
            scores = traced(
                lambda ids, lengths: titles.logits(vectors(ids, lengths)) + popularity(), IDS, LENGTHS
            )

        def encoder(query: tf.Tensor) -> Answer:
            batch = self.tokenizer.single(self.tokenizer.tokens(query))
            return {"logits": scores(batch.ids, batch.lengths)}

        def read_query(query: tf.Tensor) -> tf.Tensor:
            if vectors is None:
                return self.encoder(query)["logits"] - popularity()
            assert self.vector is not None  # traced with the score
            return self.vector(query)["vector"]

        of_encoder = EncoderScores(
            read_query,
            titles.logits if titles is not None else lambda read: read,
            titles.title_logits if titles is not None else lambda read, places: tf.gather(read, places, batch_dims=1),
        )  # fmt: skip
        used = of_encoder if document.encoder else None
        tables = SearchTables.read(blend)
        self.ranking = ranking(tables, fitted, used, candidates, top)
        self._queries = rows_that_fit(tables, candidates)

        def ranked(query: tf.Tensor) -> RankedItems:
            return self.ranking.ranked(query)

        def logits(query: tf.Tensor) -> Answer:
            return {"logits": self._of_catalogue(RankedItems(*self.ranked(query)))}

        def serving_default(query: tf.Tensor) -> Answer:
            found = RankedItems(*self.ranked(query))
            logit, index = tf.math.top_k(found.found, min(top, len(self.texts.items)))
            place = tf.gather(found.places, index, batch_dims=1)
            item, title = self.texts.items.gather(place), self.texts.titles.gather(place)
            return {"item": item, "title": title, "score": tf.exp(logit - found.total)}

        def score(query: tf.Tensor, item: tf.Tensor) -> Answer:
            # One query, encoded once, whatever the number of items. An unknown item has no chance.
            place = self.table.lookup(item)
            ranked, named = self.ranking.with_named(query[:1], tf.maximum(place, 0)[tf.newaxis])
            likely = tf.exp(named - ranked.total)[0]
            return {"score": tf.where(place >= 0, likely, 0.0)}

        def vector(query: tf.Tensor) -> Answer:
            assert vectors is not None  # else it is not traced
            batch = self.tokenizer.single(self.tokenizer.tokens(query))
            return {"vector": vectors(batch.ids, batch.lengths)}

        def index_vector(query: tf.Tensor) -> Answer:
            assert titles is not None and self.vector is not None  # else it is not traced
            return {"vector": titles.cut(self.vector(query)["vector"])}

        query = tf.TensorSpec([None], tf.string, name="query")
        self.vector = None if vectors is None else traced(vector, query)
        self.index_vector = None if vectors is None else traced(index_vector, query)
        self.encoder = traced(encoder, query)
        self.ranked = traced(ranked, query)
        self.logits = traced(logits, query)
        self.serving_default = traced(serving_default, query)
        self.score = traced(score, query, tf.TensorSpec([None], tf.string, name="item"))

    def _of_catalogue(self, ranked: RankedItems) -> tf.Tensor:
        """The logits of all items [B, C]: NEVER of those that are no candidates."""
        if not isinstance(self.ranking, OfCandidates):
            return ranked.logits
        count, items = tf.shape(ranked.places)[0], len(self.texts.items)
        cells = tf.range(count)[:, tf.newaxis] * items + ranked.places
        logits = tf.math.unsorted_segment_max(ranked.found, cells, count * items)
        return tf.reshape(tf.maximum(logits, NEVER), [count, items])

    def rows_that_fit(self, name: str) -> int:
        return self._queries if name == "query" else super().rows_that_fit(name)

    def candidates_found(self, inputs: Inputs) -> dict[str, Any] | None:
        if not isinstance(self.ranking, OfCandidates):
            return None

        def places(query: tf.Tensor) -> tf.Tensor:
            ranked = RankedItems(*self.ranked(query))
            return tf.where(ranked.stands_for > NEVER / 2, ranked.places, -1)

        logits = traced(
            lambda query, places: self.ranking.with_named(query, places)[1],
            tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.int32),
        )  # fmt: skip
        return candidate_recall(inputs["query"], places, logits, len(self.texts.items))

    @property
    def trained(self) -> Function:
        return self.encoder

    @property
    def signatures(self) -> dict[str, Function]:
        found = {**super().signatures, "score": self.score}
        return found if self.index_vector is None else {**found, "vector": self.index_vector}


def rows_that_fit(tables: SearchTables, candidates: int) -> int:
    """Queries of a request: each has a cell for every n-gram, past query and item, and for the n-grams of its candidates."""
    items = len(tables.popularity)
    widest = max(len(tables.grams), len(tables.keys), items) + 1
    return CELLS // max(widest, candidates * _GRAMS_OF_TITLE if narrows(items, candidates) else 0)


class SearchExport(Export):
    """`query` → `item`, `title`, `score`; signature `score`: `query`, `item` → `score`; with `model.head: titles` also `vector`."""

    def module(self, builder: VersionBuilder, model: TrainedModel, layers: Layers) -> RankerModule:
        blend = builder.run.stage("blend").files()
        release = builder.run.ranker.release
        return SearchModule(
            model, layers, builder.tokenizer, builder.catalogue, release.top, blend, release.candidates
        )

    def texts(self, inputs: Inputs, catalogue: PackagedCatalogue) -> list[str] | list[tuple[str, str]]:
        return inputs["query"]


FACET = SearchExport()
