"""The rates of a short training: a trial's values are those of a full one, and are carried over to its share of it.

The best peak rate falls as a training gets longer, about as the length to the power of -0.3: Bjorck et al. 2024
(arXiv 2409.19913) and Filatov et al. 2025 (arXiv 2510.03870) fit -0.32 and -0.28. Left as they are, the rates that are
best in a small share are too high for the whole, so small budgets choose the wrong trials. See docs/decisions/0094.
"""

from __future__ import annotations

from reshelve.config.ranker import Ranker
from reshelve.config.tuning import Tuning

_HIGHEST = 1.0  # the form's own limit; nothing trains above it anyway


def rate_factor(tuning: Tuning, share: float) -> float:
    """What the peak rates of a trial of `share` are multiplied by; 1 for a full training."""
    return float(share**-tuning.rate_exponent)


def at_share(ranker: Ranker, share: float) -> Ranker:
    """The ranker as it trains for `share` of its steps: both rates are higher, all else is as it was."""
    factor = rate_factor(ranker.tuning, share)
    training = ranker.training
    rates = {
        "learning_rate": min(training.learning_rate * factor, _HIGHEST),
        "head_learning_rate": min(training.head_learning_rate * factor, _HIGHEST),
    }
    return ranker.model_copy(update={"training": training.model_copy(update=rates)})
