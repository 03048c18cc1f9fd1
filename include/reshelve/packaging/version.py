"""A run's model as a SavedModel: the package stage writes the version that ships, the compress stage those it compares."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import tensorflow as tf

from reshelve.lineage import Run
from reshelve.memory.features import PairFeatures, read_features
from reshelve.packaging.catalogue import Catalogue
from reshelve.packaging.graph import Layers
from reshelve.packaging.signatures import Module, ranker_module, signatures
from reshelve.packaging.trained import TrainedModel
from reshelve.rankers import Kind


class VersionBuilder:
    """What every version of a run has in common: tokenizer, catalogue, and what was remembered."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.train, self.examples = (run.stage(name).files() for name in ("train", "examples"))
        self.catalogue = Catalogue.load(self.examples / "catalogue.parquet")

    @cached_property
    def features(self) -> PairFeatures | None:
        """The tables of the features that the model reads."""
        names = self.run.ranker.examples.features
        return read_features(self.examples, names) if names else None

    def module(self, model: TrainedModel, layers: Layers) -> Module:
        """The graph that answers strings."""
        blend = self.run.stage("blend").files() if model.document.kind is Kind.SEARCH else None
        top, repeat = self.run.ranker.release.top, self.run.ranker.examples.repeat
        tokenizer = self.train / "tokenizer.json"
        return ranker_module(
            model, layers, tokenizer, self.catalogue, top, blend, self.features, repeat=repeat
        )

    def write(self, module: Module, directory: Path) -> None:
        """The SavedModel, and the catalogue beside it."""
        tf.saved_model.save(module, str(directory), signatures=signatures(module))
        (directory / "assets.extra").mkdir(exist_ok=True)
        self.catalogue.write_jsonl(directory / "assets.extra" / "catalogue.jsonl")


def size_of(version: Path) -> int:
    """Bytes of all its files."""
    return sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
