"""A run's model as a SavedModel: the package stage writes the version that ships, the compress stage those it compares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import tensorflow as tf

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.layers import Layers
from reshelve.export.limits import within_limits
from reshelve.export.module import RankerModule
from reshelve.features.features import PairFeatures, read_features
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.model.trained import TrainedModel


class VersionBuilder:
    """What every version of a run has in common: tokenizer, catalogue, and what was remembered."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.train, self.examples = (run.stage(name).files() for name in ("train", "examples"))
        catalogue = PackagedCatalogue.load(self.examples / "catalogue.parquet")
        self.catalogue = catalogue.without_counts() if run.ranker.remember.privacy.on else catalogue

    @cached_property
    def features(self) -> PairFeatures | None:
        """The tables of the features that the model reads."""
        names = self.run.ranker.examples.features
        return read_features(self.examples, names) if names else None

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json that was trained with."""
        return self.train / "tokenizer.json"

    def module(self, model: TrainedModel, layers: Layers) -> RankerModule:
        """The graph that answers strings, as the model's kind has it."""
        return kind_of(model.document.kind).export.module(self, model, layers)

    def write(self, module: RankerModule, directory: Path) -> None:
        """The SavedModel, whose signatures refuse requests that are too large, and the catalogue beside it."""
        rows = rows_of(module, self.run.ranker.release.max_rows)
        signatures = {name: within_limits(each, rows) for name, each in module.signatures.items()}
        tf.saved_model.save(module, str(directory), signatures=signatures)
        (directory / "assets.extra").mkdir(exist_ok=True)
        self.catalogue.write_jsonl(directory / "assets.extra" / "catalogue.jsonl")


def rows_of(module: RankerModule, given: int | None) -> Callable[[str], int]:
    """By an input's name the rows that a request may have: as the ranker file has `given`, or fewer, if the graph can number no more."""
    return lambda name: min(module.most_rows(name) if given is None else given, module.rows_that_fit(name))


def size_of(version: Path) -> int:
    """Bytes of all its files."""
    return sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
