"""What a step starts from and what it gives: a model, and how its numbers are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from reshelve.compression.int8 import QuantizedModel
from reshelve.errors import DataError
from reshelve.packaging.bf16_layers import Bf16Layers
from reshelve.packaging.graph import FloatLayers
from reshelve.packaging.int8_layers import Int8Layers
from reshelve.packaging.trained import TrainedModel

Precision = Literal["int8", "bfloat16", "float32"]


class CompressionDocument(BaseModel):
    """`compression.json`: what the package stage builds. `scales`: site → the input's least and greatest float.

    `reshaped`: the weights are this stage's `model.safetensors`, not the train stage's.
    """

    model_config = ConfigDict(frozen=True)

    precision: Precision = "float32"
    reshaped: bool = False
    layers: tuple[str, ...] = ()
    alpha: float | None = None
    scales: dict[str, tuple[float, float]] = {}


@dataclass(frozen=True)
class Candidate:
    """A model that could ship. `about` is what the step that made it has to tell, for its entry of the result."""

    model: TrainedModel
    quantized: QuantizedModel | None = None
    precision: Precision = "float32"
    reshaped: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    def layers(self) -> FloatLayers:
        """The graph's products and embeddings in this precision."""
        if self.quantized is not None:
            return Int8Layers(self.model, self.quantized)
        return Bf16Layers(self.model) if self.precision == "bfloat16" else FloatLayers(self.model)

    def save(self, directory: Path) -> CompressionDocument:
        """Write what the package stage needs: `compression.json` last."""
        document = CompressionDocument(precision=self.precision, reshaped=self.reshaped)
        if self.reshaped:
            self.model.save(directory)
        if self.quantized is not None:
            self.quantized.save(directory / "quantized.safetensors")
            document = document.model_copy(update=_described(self.quantized, self.about.get("alpha")))
        partial = directory / ".compression.json.partial"
        partial.write_text(document.model_dump_json(indent=1))
        partial.rename(directory / "compression.json")
        return document

    @classmethod
    def load(cls, directory: Path, trained: Path) -> Candidate:
        """What `save` wrote; `trained` is the train stage's directory. Raises DataError where it is not there."""
        document = read_compression(directory)
        model = TrainedModel.load(directory if document.reshaped else trained)
        quantized = None
        if document.precision == "int8":
            quantized = QuantizedModel.load(directory / "quantized.safetensors")
        return cls(model, quantized, document.precision, document.reshaped)


def _described(quantized: QuantizedModel, alpha: float | None) -> dict[str, Any]:
    sites = [name.removesuffix(".weight") for name in sorted(quantized.tensors) if name.endswith(".weight")]
    scales = {
        site: tuple(map(float, quantized[f"{site}.input"])) for site in sites if quantized.has_range(site)
    }
    return {"layers": tuple(sites), "alpha": alpha, "scales": scales}


def read_compression(directory: Path) -> CompressionDocument:
    """`compression.json`. Raises DataError where it is not one."""
    try:
        return CompressionDocument.model_validate_json((directory / "compression.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory / 'compression.json'}: cannot be read", str(error)) from error
