"""bfloat16, for processors that multiply it."""

from __future__ import annotations

from dataclasses import replace

from reshelve.compression.context import Context
from reshelve.config.compression import Bf16Step
from reshelve.export.candidate import Candidate
from reshelve.export.precisions.bf16 import Bf16


def bf16(_step: Bf16Step, before: Candidate, _context: Context) -> Candidate:
    """The same model; its graph keeps and multiplies bfloat16."""
    return replace(before, precision=Bf16(), about={})
