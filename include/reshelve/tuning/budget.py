"""What tuning may still spend: in minutes of evaluating and in money, whichever is less."""

from __future__ import annotations

from dataclasses import dataclass

from reshelve.config.tuning import Tuning
from reshelve.tuning.standing import Standing

MAX_MINUTES, MAX_COST = "tuning.max_minutes", "tuning.max_cost"


@dataclass(frozen=True)
class Left:
    """Seconds that each trial of the wave may take, and the key that says so."""

    seconds: float
    limit: str


def left(tuning: Tuning, at: Standing) -> Left:
    """What each trial of the wave may take. What finished waves spent counts, an interruption does not.

    Money is shared evenly by the trials of a wave, so that together they cannot spend more than there is.
    """
    by_time = Left(tuning.max_minutes * 60 - at.seconds, MAX_MINUTES)
    if tuning.max_cost is None or not at.ids:
        return by_time
    paid = cost(tuning, at.machine_seconds)
    by_money = Left((tuning.max_cost - paid) / tuning.price_per_hour * 3600 / len(at.ids), MAX_COST)
    return min(by_time, by_money, key=lambda found: found.seconds)


def cost(tuning: Tuning, machine_seconds: float) -> float:
    """What that much evaluating costs, in the currency of `tuning.price_per_hour`."""
    return machine_seconds / 3600 * tuning.price_per_hour
