"""What is particular to one precision: the graph's products and embeddings in it, and its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from reshelve.export.layers import FloatLayers
from reshelve.model.int8 import ActivationRanges
from reshelve.model.trained import TrainedModel


class Precision(ABC):
    """How the numbers of one model are kept. What was rounded beforehand is the object's own."""

    name: ClassVar[str]
    """As it is in compression.json and in a version's reshelve.json."""

    @abstractmethod
    def layers(self, model: TrainedModel) -> FloatLayers:
        """The products and embeddings of `model`, which are its own where this precision has none."""

    def save(self, directory: Path) -> dict[str, Any]:
        """Write what `load` needs beside the model's weights; gives what compression.json tells of it."""
        return {}

    @classmethod
    def load(cls, directory: Path) -> Self:
        """What `save` wrote in the compress stage's directory. Raises DataError where it is not there."""
        return cls()

    @classmethod
    def usual(cls, model: TrainedModel, ranges: ActivationRanges) -> Self:
        """The model in it with nothing chosen: what it will cost, not what it will say."""
        return cls()
