"""Attention is the same function whichever way it is worked out."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from reshelve.training.attention import LONGEST_KEPT, attend

SCALE = 0.25


def inputs(length: int, readers: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Query, key and value that want gradients, and a mask in which the second text is half as long."""
    torch.manual_seed(3)
    shapes = (readers, length, length)
    values = [torch.randn(2, 4, rows, 16, dtype=dtype).requires_grad_() for rows in shapes]
    allowed = torch.ones(2, 1, 1, length, dtype=torch.bool)
    allowed[1, ..., length // 2 :] = False
    return values, allowed


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("length", "readers"), [(9, 9), (9, 1), (LONGEST_KEPT + 2, 3)])
def test_answers_and_gradients_are_those_of_exact_attention(
    length: int, readers: int, dtype: torch.dtype, masked: bool
) -> None:
    values, mask = inputs(length, readers, dtype)
    allowed = mask if masked else None
    exact = [value.detach().double().requires_grad_() for value in values]

    found = attend(*values, allowed, SCALE)
    expected = F.scaled_dot_product_attention(*exact, attn_mask=allowed, scale=SCALE)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()

    # A bf16 number has 8 bits.
    allowance = 0.03 if dtype is torch.bfloat16 else 1e-5
    pairs = [
        (found, expected),
        *((value.grad, other.grad) for value, other in zip(values, exact, strict=True)),
    ]
    for ours, theirs in pairs:
        assert ours is not None and theirs is not None
        assert ours.dtype is dtype
        difference = (ours.double() - theirs).norm() / theirs.norm()
        assert difference < allowance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_not_allowed_is_not_read(dtype: torch.dtype) -> None:
    values, allowed = inputs(8, 8, dtype)
    before = attend(*values, allowed, SCALE)
    with torch.no_grad():
        values[1][1, :, 4:] = 1000.0
        values[2][1, :, 4:] = 1000.0
    assert torch.equal(attend(*values, allowed, SCALE), before)
