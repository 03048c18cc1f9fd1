"""bfloat16, for processors that multiply it."""

from __future__ import annotations

from dataclasses import replace

from reshelve.compression.candidate import Candidate
from reshelve.compression.context import Context
from reshelve.compression.form import Bf16


def bf16(_step: Bf16, before: Candidate, _context: Context) -> Candidate:
    """The same model; its graph keeps and multiplies bfloat16."""
    return replace(before, precision="bfloat16", about={})
