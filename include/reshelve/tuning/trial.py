"""One trial at one budget, as it is asked and as it ends."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from reshelve.config.yaml_models import Form

Draws = dict[str, float | int]  # Hyperopt's own values: for a choice the index of the option


class Status(StrEnum):
    """Where a trial stands at its rung."""

    ASKED = "asked"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # by the budget: it says nothing about the values


class Trial(Form):
    """One trial at one rung of its bracket (rung 0 where there is no halving).

    `draws` are Hyperopt's own values, `values` the ranker's; `seen` the trials whose losses led to them. `share` is the
    share of a full training it costs. `loss` is what tuning minimises: the validation loss, and what the latency adds.
    """

    id: int
    rung: int = 0
    share: float
    draws: Draws
    values: dict[str, Any]
    seen: tuple[int, ...] = ()
    status: Status = Status.ASKED
    attempts: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    latency_ms: float | None = None
    seconds: float = 0.0
    step_seconds: float | None = None  # those of them that went into training steps
    reason: str = ""
