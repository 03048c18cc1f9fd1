"""What a step starts from and what it gives: a model, and how its numbers are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from reshelve.errors import DataError
from reshelve.export.layers import FloatLayers
from reshelve.export.precisions.base import Precision
from reshelve.export.precisions.float32 import Float32
from reshelve.export.precisions.registry import precision_named
from reshelve.files import write_whole
from reshelve.model.trained import TrainedModel

FILE = "compression.json"


class CompressionDocument(BaseModel):
    """`compression.json`: what the package stage builds. `scales`: site → the input's least and greatest float.

    `reshaped`: the weights are this stage's `model.safetensors`, not the train stage's.
    """

    model_config = ConfigDict(frozen=True)

    precision: str = Float32.name
    reshaped: bool = False
    layers: tuple[str, ...] = ()
    alpha: float | None = None
    scales: dict[str, tuple[float, float]] = {}


@dataclass(frozen=True)
class Candidate:
    """A model that could ship. `about` is what the step that made it has to tell, for its entry of the result."""

    model: TrainedModel
    precision: Precision = field(default_factory=Float32)
    reshaped: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def as_trained(self) -> bool:
        """Whether nothing was compressed."""
        return not self.reshaped and self.precision.name == Float32.name

    def layers(self) -> FloatLayers:
        """The graph's products and embeddings in this precision."""
        return self.precision.layers(self.model)

    def save(self, directory: Path) -> CompressionDocument:
        """Write what the package stage needs: `compression.json` last."""
        if self.reshaped:
            self.model.save(directory)
        told = self.precision.save(directory)
        document = CompressionDocument(precision=self.precision.name, reshaped=self.reshaped, **told)
        write_whole(directory / FILE, document.model_dump_json(indent=1))
        return document

    @classmethod
    def load(cls, directory: Path, trained: Path) -> Candidate:
        """What `save` wrote; `trained` is the train stage's directory. Raises DataError where it is not there."""
        document = read_compression(directory)
        model = TrainedModel.load(directory if document.reshaped else trained)
        return cls(model, precision_named(document.precision).load(directory), document.reshaped)


def read_compression(directory: Path) -> CompressionDocument:
    """`compression.json`. Raises DataError where it is not one."""
    try:
        return CompressionDocument.model_validate_json((directory / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory / FILE}: cannot be read", str(error)) from error
