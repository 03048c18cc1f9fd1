"""A ranker file's search space as Hyperopt's, and Hyperopt's answers as plain Python."""

from __future__ import annotations

import math
from typing import Any

from hyperopt import hp, space_eval

from reshelve.config.tuning import Choice, LogUniform, Tuning
from reshelve.tuning.trial import Draws


def hyperopt_space(tuning: Tuning) -> dict[str, Any]:
    """`tuning.space` as Hyperopt expressions, each labelled with its dotted path."""
    space: dict[str, Any] = {}
    for path, form in tuning.space.items():
        if isinstance(form, LogUniform):
            space[path] = hp.loguniform(path, *map(math.log, form.loguniform))
        elif isinstance(form, Choice):
            space[path] = hp.choice(path, list(form.choice))
        else:
            space[path] = hp.uniform(path, *form.uniform)
    return space


def plain_values(space: dict[str, Any], draws: Draws) -> dict[str, Any]:
    """The ranker values of `draws`, as Python's own numbers and strings."""
    return {path: _plain(value) for path, value in space_eval(space, draws).items()}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
