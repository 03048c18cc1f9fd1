"""How much each piece of evidence counts: a small network over the features of one item, fitted listwise.

score(item) = a·x + v·silu(A x + c), x being the standardised features. The same few numbers weigh every item, so that a
new item is judged by what is known of it. Listwise softmax cross-entropy: Cao et al., Learning to Rank: From Pairwise
Approach to Listwise Approach (2007), as ListNet with one item drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from reshelve.files import whole

Array = np.ndarray

HIDDEN = 32
_CLIP = 8.0  # standard deviations: an odd value must not outweigh all else
_EPOCHS = 15
_BATCH = 64
_RATE = 3e-3
_DECAY = 1e-4
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Lists:
    """Shortlists of past questions: features float32 [Q, K, F], weight of each item's choices [Q, K], question's [Q].

    `queries` [Q]: their texts, of which one may be asked on several days.
    """

    features: Array
    chosen: Array
    weights: Array
    queries: Array

    @classmethod
    def joined(cls, lists: Sequence[Lists]) -> Lists:
        """All in one, without questions whose shortlist holds nothing that was chosen."""
        features, chosen, weights, queries = (
            np.concatenate([getattr(one, name) for one in lists])
            for name in ("features", "chosen", "weights", "queries")
        )
        kept = chosen.sum(1) > 0
        return cls(features[kept], chosen[kept], weights[kept], queries[kept])

    def without(self, feature: int) -> Lists:
        """The same without one feature."""
        return replace(self, features=np.delete(self.features, feature, axis=2))

    def of(self, kept: Array) -> Lists:
        """Those questions alone: bool [Q]."""
        return Lists(self.features[kept], self.chosen[kept], self.weights[kept], self.queries[kept])

    @property
    def choices(self) -> Array:
        """What each question counts for: float [Q], the weight of its choices times its own."""
        return self.weights * self.chosen.sum(1)


@dataclass(frozen=True)
class Blend:
    """The fitted network. mean, deviation, linear [F]; hidden [F, H]; bias, output [H]."""

    mean: Array
    deviation: Array
    linear: Array
    hidden: Array
    bias: Array
    output: Array

    def write(self, path: Path) -> None:
        """As safetensors."""
        with whole(path) as partial:
            save_file(
                {name: np.ascontiguousarray(t, np.float32) for name, t in asdict(self).items()}, partial
            )

    @classmethod
    def read(cls, path: Path) -> Blend:
        """What `write` wrote."""
        return cls(**load_file(path))

    def scores(self, features: tf.Tensor) -> tf.Tensor:
        """float32 [..., F] → [...], in TensorFlow."""
        x = tf.clip_by_value((features - self.mean) / self.deviation, -_CLIP, _CLIP)
        inner = tf.nn.silu(tf.tensordot(x, tf.constant(self.hidden), 1) + self.bias)
        return tf.linalg.matvec(x, self.linear) + tf.linalg.matvec(inner, self.output)

    def losses(self, lists: Lists) -> Array:
        """Cross-entropy per choice of each question, in nats [Q]."""
        scores = self.scores(tf.constant(lists.features)).numpy()
        likely = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        return -(lists.chosen * likely).sum(1) / lists.chosen.sum(1)

    def loss(self, lists: Lists) -> float:
        """Mean cross-entropy per choice, in nats."""
        return float(np.average(self.losses(lists), weights=lists.choices))


def fit(lists: Lists, seed: int) -> Blend:
    """Fit on all questions. Equal inputs and seed give equal weights on one machine."""
    features = torch.from_numpy(lists.features)
    flat = features.reshape(-1, features.shape[-1])
    mean, deviation = flat.mean(0), flat.std(0) + _LEAST_DEVIATION
    x = ((features - mean) / deviation).clamp(-_CLIP, _CLIP)
    chosen = torch.from_numpy(lists.chosen * lists.weights[:, None])
    generator = torch.Generator().manual_seed(seed)
    linear, inner, output = _network(x.shape[-1], generator)
    parameters = [linear, *inner.parameters(), output]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    steps, step = _EPOCHS * -(-len(x) // _BATCH), 0
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(_BATCH):
            optimizer.param_groups[0]["lr"] = _RATE * (1 - step / steps)
            step += 1
            scores = x[batch] @ linear + nn.functional.silu(inner(x[batch])) @ output
            loss = -(chosen[batch] * scores.log_softmax(1)).sum() / chosen[batch].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = (mean, deviation, linear, inner.weight.T, inner.bias, output)
    return Blend(*(np.ascontiguousarray(t.detach().numpy()) for t in found))


def _network(features: int, generator: torch.Generator) -> tuple[Tensor, nn.Linear, Tensor]:
    """Starts at 0 for every item, whatever its features."""
    linear = torch.zeros(features, requires_grad=True)
    inner = nn.Linear(features, HIDDEN)
    with torch.no_grad():
        bound = features**-0.5
        inner.weight.uniform_(-bound, bound, generator=generator)
        inner.bias.uniform_(-bound, bound, generator=generator)
    output = (torch.randn(HIDDEN, generator=generator) * 0.05).requires_grad_()
    return linear, inner, output
