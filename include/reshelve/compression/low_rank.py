"""A product's matrix as two thin ones: the best of its rank for the activations of training examples.

x·W ≈ (x·A)·B with A·B = S⁻¹·(S·W)_r, where S holds the root mean square of each input channel and (…)_r is the truncated
singular value decomposition: a channel that is always small may be badly kept (as in ASVD, Yuan et al., 2023).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reshelve.compression.context import Context
from reshelve.config.compression import LowRank
from reshelve.export.candidate import Candidate
from reshelve.model.int8 import ActivationRanges
from reshelve.model.trained import Array, TrainedModel


def low_rank(step: LowRank, before: Candidate, context: Context) -> Candidate:
    """The model with the step's products factorised."""
    model = factorised(before.model, context.ranges(before.model), step.share, step.products)
    return replace(before, model=model, reshaped=True, about={"rank_share": step.share})


def factorised(
    model: TrainedModel, ranges: ActivationRanges, share: float, products: tuple[str, ...]
) -> TrainedModel:
    """The model with `products` of every layer at `share` of their full rank; at 1 it computes the same."""
    tensors = dict(model.tensors)
    for number in range(model.document.architecture.num_hidden_layers):
        for product in products:
            site = f"{model.layer(number)}.{product}"
            weight, bias = model.dense(site)
            rank = max(1, round(min(weight.shape) * share))
            down, up = split(weight, ranges.power[site], rank)
            tensors |= {
                f"{site}.down.weight": np.ascontiguousarray(down.T), f"{site}.down.bias": np.zeros(rank, np.float32),
                f"{site}.up.weight": np.ascontiguousarray(up.T), f"{site}.up.bias": bias,
            }  # fmt: skip
            for name in model.names(site):
                del tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return TrainedModel(model.document, tensors)


def split(weight: Array, power: Array, rank: int) -> tuple[Array, Array]:
    """Weight [inputs, outputs] → (down [inputs, rank], up [rank, outputs]); `power` [inputs]: sums of squares."""
    scale = np.sqrt(np.maximum(power, power.mean() * 1e-4 + 1e-12)).astype(np.float64)
    left, values, right = np.linalg.svd(scale[:, None] * weight.astype(np.float64), full_matrices=False)
    root = np.sqrt(values[:rank])
    down, up = left[:, :rank] * root / scale[:, None], root[:, None] * right[:rank]
    return down.astype(np.float32), up.astype(np.float32)
