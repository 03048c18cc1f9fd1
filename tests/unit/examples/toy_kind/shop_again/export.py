"""Its graph."""

import tensorflow as tf

from reshelve.export.graph import RankerGraph
from reshelve.export.module import IDS, LENGTHS, CatalogueTexts, RankerModule, traced
from reshelve.kind import Export


class AgainModule(RankerModule):
    """seen string[B] → the K likeliest items."""

    def __init__(self, builder, model, layers):
        super().__init__()
        self.texts = CatalogueTexts(builder.catalogue)
        self.layers = layers
        graph = RankerGraph(model, layers)
        self.tokenizer = model.encoder.build_tokenizer(builder.tokenizer, model.document.max_length)
        scores = traced(lambda ids, lengths: graph.logits(ids, lengths, None), IDS, LENGTHS)

        def logits(seen):
            batch = self.tokenizer.single(self.tokenizer.tokens(seen))
            return {"logits": scores(batch.ids, batch.lengths)}

        def serving_default(seen):
            return self.texts.best(self.logits(seen)["logits"], builder.run.ranker.release.top)

        seen = tf.TensorSpec([None], tf.string, name="seen")
        self.logits = traced(logits, seen)
        self.serving_default = traced(serving_default, seen)


class AgainExport(Export):
    """`seen` → `item`, `title`, `score`."""

    def module(self, builder, model, layers):
        return AgainModule(builder, model, layers)

    def texts(self, inputs, catalogue):
        return inputs["seen"]


FACET = AgainExport()
