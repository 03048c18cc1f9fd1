"""Attention by the way that is cheapest where it runs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

# The longest text whose scores, heads · T² numbers, are kept for the backward pass.
LONGEST_KEPT = 256


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, scale: float) -> Tensor:
    """softmax(query · keyᵀ · scale) · value over the allowed keys.

    [B, heads, T', D], [B, heads, T, D], [B, heads, T, D] and a mask [B, 1, 1 or T', T], true where a key is read (None:
    all are) → [B, heads, T', D]. Each query needs an allowed key. The backward pass of PyTorch's fused kernel costs
    several times that of the plain products where the numbers are bf16 on a CPU (docs/decisions/0084): there, texts
    that are not long take the products.
    """
    bf16_on_cpu = query.device.type == "cpu" and query.dtype is torch.bfloat16
    if not (bf16_on_cpu and query.requires_grad and key.shape[2] <= LONGEST_KEPT):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scale)
    scores = (query * scale) @ key.transpose(2, 3)
    if allowed is not None:
        # Half of the smallest number: added to a score it cannot overflow.
        closed = torch.finfo(scores.dtype).min / 2
        scores = scores + torch.zeros_like(allowed, dtype=scores.dtype).masked_fill(~allowed, closed)
    return scores.softmax(-1) @ value


def register() -> str:
    """Make `attend` known to transformers; gives the name by which a model's configuration asks for it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    name = "reshelve"
    AttentionInterface.register(name, _for_encoder)
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def _for_encoder(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """`attend` in the form that transformers calls; heads side by side again: [B, T', heads, D]."""
    return attend(query, key, value, attention_mask, scaling).transpose(1, 2).contiguous(), None
