"""Int8 weights per output channel, int8 word embeddings and static activation ranges, with SmoothQuant.

SmoothQuant (Xiao et al., 2023) moves the outliers of activations into the weights: channel c of an input
is divided by s_c = Xmax_c^α / Wmax_c^(1−α) and row c of the weight is multiplied by it, which changes
nothing in float and makes both sides easy to round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from reshelve.config.compression import Int8Step
from reshelve.files import whole
from reshelve.model.trained import Array, TrainedModel

_LARGEST = 127
_SMOOTHING_LIMITS = (1e-3, 1e3)


@dataclass
class ActivationRanges:
    """What calibration saw: per site the largest |input| of each channel, and the range of activations
    that go from one int8 product straight into the next (GELU, ReLU)."""

    inputs: dict[str, Array] = field(default_factory=dict)
    power: dict[str, Array] = field(default_factory=dict)  # sum of the squares of each channel
    between: dict[str, tuple[float, float]] = field(default_factory=dict)

    def see_input(self, site: str, largest: Array) -> None:
        """Widen a site's input by the largest |input| of each channel."""
        self.inputs[site] = np.maximum(self.inputs.get(site, largest), largest)

    def see_power(self, site: str, squares: Array) -> None:
        """Add the sum of a site's squared input, of each channel."""
        self.power[site] = self.power.get(site, np.zeros_like(squares)) + squares

    def see_between(self, site: str, low: float, high: float) -> None:
        """Widen the range of what `site`'s activation gives out (0 is always in it)."""
        least, most = self.between.get(site, (0.0, 0.0))
        self.between[site] = (min(least, low), max(most, high))


@dataclass(frozen=True)
class QuantizedModel:
    """Tensors by name. For a site S: `S.weight` int8 [inputs, outputs], `S.range` [outputs] (the float that
    127 stands for), `S.bias` [outputs], `S.input` [2] (the input's least and greatest float), and where the
    input comes as float `S.step` [inputs], the factor that turns it into int8. A dynamic site has `S.smooth`
    [inputs], the smoothing's factor, in place of `S.input` and `S.step`: its range is each batch's own."""

    tensors: dict[str, Array]

    @classmethod
    def load(cls, path: Path) -> QuantizedModel:
        """Read `quantized.safetensors`."""
        return cls(load_file(path))

    def save(self, path: Path) -> None:
        """Write `path`; it appears only when it is whole."""
        with whole(path) as partial:
            save_file(self.tensors, partial)

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def has(self, site: str) -> bool:
        """Whether this site (or the word embeddings) is int8."""
        return f"{site}.weight" in self.tensors

    def has_range(self, site: str) -> bool:
        """Whether the range of this site's input is known beforehand."""
        return f"{site}.input" in self.tensors

    def takes_bytes(self, site: str) -> bool:
        """Whether this site's input comes rounded from the product before it."""
        return self.has_range(site) and f"{site}.step" not in self.tensors

    @property
    def bytes(self) -> int:
        """Size of the tensors."""
        return sum(t.nbytes for t in self.tensors.values())


def quantize(
    model: TrainedModel,
    ranges: ActivationRanges,
    alpha: float,
    items: bool = True,
    form: Int8Step = Int8Step(),  # type: ignore[call-arg]
) -> QuantizedModel:
    """The model's products in int8 at smoothing strength `alpha`; with `items` the catalogue's matrix too."""
    tensors = _embeddings(model) if form.embeddings else {}
    for site in model.sites():
        if site in ("hidden", "items") and (not items or form.mode == "dynamic"):
            continue
        weight, bias = model.dense(site)
        source = _fed_by(model, site) if form.mode == "static" else None
        if source:
            tensors[f"{site}.input"] = np.array(ranges.between[source], np.float32)
        else:
            smoothing = smoothing_scales(ranges.inputs[site], weight, alpha)
            weight = weight * smoothing[:, None]
            if form.mode == "dynamic":
                tensors[f"{site}.smooth"] = (1 / smoothing).astype(np.float32)
            else:
                reach = max(float((ranges.inputs[site] / smoothing).max()), 1e-6)
                tensors[f"{site}.input"] = np.array([-reach, reach], np.float32)
                tensors[f"{site}.step"] = (_LARGEST / (smoothing * reach)).astype(np.float32)
        reach_out = np.maximum(np.abs(weight).max(axis=0), 1e-12)
        if not form.per_channel:
            reach_out = np.full_like(reach_out, reach_out.max())
        tensors[f"{site}.weight"] = _rounded(weight / reach_out * _LARGEST)
        tensors[f"{site}.range"] = reach_out.astype(np.float32)
        tensors[f"{site}.bias"] = bias
    return QuantizedModel({name: np.ascontiguousarray(t) for name, t in tensors.items()})


def _embeddings(model: TrainedModel) -> dict[str, Array]:
    words = model.encoder.words
    table = model[f"{words}.weight"]
    largest = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12)
    steps = (largest / _LARGEST).astype(np.float32)
    return {f"{words}.weight": _rounded(table / largest * _LARGEST), f"{words}.step": steps}


def _fed_by(model: TrainedModel, site: str) -> str | None:
    """The activation whose rounded output is this site's input."""
    if site == "items":
        return "hidden"
    layer, found, _ = site.partition(".output")
    return f"{layer}.intermediate" if found and site == model.parts(f"{layer}.output")[0] else None


def smoothing_scales(inputs: Array, weight: Array, alpha: float) -> Array:
    """SmoothQuant's s [channels], from the largest |input| [channels] and the weight [channels, outputs]."""
    x = np.maximum(inputs, 1e-5)
    w = np.maximum(np.abs(weight).max(axis=1), 1e-5)
    return np.clip(x**alpha / w ** (1 - alpha), *_SMOOTHING_LIMITS).astype(np.float32)


def _rounded(values: Array) -> Array:
    return np.clip(np.rint(values), -_LARGEST, _LARGEST).astype(np.int8)


def float_bytes(model: TrainedModel, quantized: QuantizedModel) -> int:
    """Bytes of the tensors that stay float32 beside `quantized`."""
    words = model.encoder.words
    small = sum(t.nbytes for t in model.tensors.values())
    replaced = [
        *([model[f"{words}.weight"]] if quantized.has(words) else []),
        *(a for s in model.sites() if quantized.has(s) for a in model.dense(s)),
    ]
    return small - sum(t.nbytes for t in replaced)


__all__ = ["ActivationRanges", "QuantizedModel", "float_bytes", "quantize", "smoothing_scales"]
