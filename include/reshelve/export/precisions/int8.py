"""Eight bits, rounded beforehand with ranges of activations from training examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reshelve.errors import DataError
from reshelve.export.layers import FloatLayers
from reshelve.export.precisions.base import Precision
from reshelve.export.precisions.int8_layers import Int8Layers
from reshelve.model.int8 import ActivationRanges, QuantizedModel, quantize
from reshelve.model.trained import TrainedModel

FILE = "quantized.safetensors"
_USUAL_ALPHA = 0.7


@dataclass(frozen=True)
class Int8(Precision):
    """The rounded tensors, and the smoothing's strength that they were made with where it is known."""

    name = "int8"
    quantized: QuantizedModel
    alpha: float | None = None

    def layers(self, model: TrainedModel) -> FloatLayers:
        return Int8Layers(model, self.quantized)

    def save(self, directory: Path) -> dict[str, Any]:
        self.quantized.save(directory / FILE)
        names = sorted(self.quantized.tensors)
        sites = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
        scales = {
            site: tuple(map(float, self.quantized[f"{site}.input"]))
            for site in sites
            if self.quantized.has_range(site)
        }
        return {"layers": tuple(sites), "alpha": self.alpha, "scales": scales}

    @classmethod
    def load(cls, directory: Path) -> Int8:
        try:
            return cls(QuantizedModel.load(directory / FILE))
        except OSError as error:
            raise DataError(f"{directory / FILE}: cannot be read", str(error)) from error

    @classmethod
    def usual(cls, model: TrainedModel, ranges: ActivationRanges) -> Int8:
        return cls(quantize(model, ranges, _USUAL_ALPHA), _USUAL_ALPHA)
