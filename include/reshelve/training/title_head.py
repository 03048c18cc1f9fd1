"""The head of a dual encoder: an item is the vector of its title, read by the encoder that reads queries.

logit(query, item) = scale · cos(query, title) + the item's log popularity in the training days. What is learnt is the encoder, the
projection and the scale, so that an item that nobody has chosen yet has a vector as soon as it has a title.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from reshelve.model.description import MOST_SCALE

START = 20.0
"""The scale before training: nats that a cosine of 1 is worth."""


class TitleHead(nn.Module):
    """Pooled states [B, H] → logits [B, C]. `vectors` [C, D] and `bias` [C] are set, not trained; an untitled item's vector is 0."""

    vectors: Tensor
    bias: Tensor

    def __init__(self, width: int, size: int, items: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, size, bias=False)
        nn.init.orthogonal_(self.projection.weight)  # cosines begin about as the pretrained encoder has them
        self.log_scale = nn.Parameter(torch.tensor(math.log(START)))
        self.register_buffer("vectors", torch.zeros(items, size))
        self.register_buffer("bias", torch.zeros(items))

    @property
    def scale(self) -> Tensor:
        """What a cosine of 1 is worth, in nats."""
        return self.log_scale.exp().clamp(max=MOST_SCALE)

    def vector(self, pooled: Tensor) -> Tensor:
        """[B, H] → [B, D] of length 1, float32."""
        return F.normalize(self.projection(pooled).float(), dim=1)

    def likeness(self, queries: Tensor, titles: Tensor) -> Tensor:
        """Vectors [B, D] and [K, D] → scale · cosine [B, K], in float32 whatever the encoder runs in."""
        with torch.autocast(queries.device.type, enabled=False):
            return self.scale * (queries @ titles.T)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.likeness(self.vector(pooled), self.vectors) + self.bias
