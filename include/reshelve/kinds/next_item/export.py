"""The graph of a next_item version: the history's titles in, the likeliest items out."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.graph import RankerGraph
from reshelve.export.held import HeldItems
from reshelve.export.layers import Layers
from reshelve.export.module import IDS, LENGTHS, Answer, CatalogueTexts, Function, RankerModule, traced
from reshelve.export.version import VersionBuilder
from reshelve.kind import Export, Inputs
from reshelve.model.trained import TrainedModel


class NextItemModule(RankerModule):
    """history string[B] → the K likeliest items with their softmax probabilities.

    Where nothing is to `repeat`, what the history holds has no chance: it is answered after all others, if at all.
    """

    def __init__(
        self,
        model: TrainedModel,
        layers: Layers,
        tokenizer: Path,
        catalogue: PackagedCatalogue,
        top: int,
        repeat: bool = True,
    ) -> None:
        super().__init__()
        self.held = None if repeat else HeldItems(catalogue)
        self.texts = CatalogueTexts(catalogue)
        self.layers = layers
        graph = RankerGraph(model, layers)
        self.tokenizer = model.encoder.build_tokenizer(tokenizer, model.document.max_length)
        scores = traced(lambda ids, lengths: graph.logits(ids, lengths, None), IDS, LENGTHS)

        def encoder(history: tf.Tensor) -> Answer:
            batch = self.tokenizer.single(self.tokenizer.tokens(history))
            return {"logits": scores(batch.ids, batch.lengths)}

        def logits(history: tf.Tensor) -> Answer:
            read = self.encoder(history)["logits"]
            return {"logits": self.held.left_out(read, history) if self.held else read}

        def serving_default(history: tf.Tensor) -> Answer:
            return self.texts.best(self.logits(history)["logits"], top)

        history = tf.TensorSpec([None], tf.string, name="history")
        self.encoder = traced(encoder, history)
        self.logits = traced(logits, history) if self.held else self.encoder
        self.serving_default = traced(serving_default, history)

    @property
    def trained(self) -> Function:
        return self.encoder


class NextItemExport(Export):
    """`history` → `item`, `title`, `score`."""

    def module(self, builder: VersionBuilder, model: TrainedModel, layers: Layers) -> RankerModule:
        ranker = builder.run.ranker
        return NextItemModule(
            model, layers, builder.tokenizer, builder.catalogue, ranker.release.top, ranker.examples.repeat
        )

    def texts(self, inputs: Inputs, catalogue: PackagedCatalogue) -> list[str] | list[tuple[str, str]]:
        return inputs["history"]


FACET = NextItemExport()
