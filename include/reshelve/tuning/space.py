"""A ranker file's search space as Hyperopt's, and Hyperopt's answers as plain Python."""

from __future__ import annotations

import math
from typing import Any

from hyperopt import hp, space_eval

from reshelve.errors import ConfigurationError
from reshelve.rankers import Ranker
from reshelve.tuning.form import Choice, LogUniform, Search
from reshelve.tuning.trial import Draws

# What may differ by trial beside training: it changes the model that is served and not the examples.
SERVED = ("model.layers",)


def check_space(ranker: Ranker) -> None:
    """Raise ConfigurationError where a key cannot be searched, or an end of its range does not fit."""
    for path, form in ranker.search.space.items():
        if not path.startswith("training.") and path not in SERVED:
            # The examples are made before the search: what they depend on may not differ by trial.
            raise ConfigurationError(
                f"ranker {ranker.name}: search.space: {path} cannot be searched",
                f"expected a key of training, or {', '.join(SERVED)}",
            )
        for value in _ends(form):
            ranker.with_values({path: value})
    if ranker.search.latency_weight and not set(SERVED) & set(ranker.search.space):
        raise ConfigurationError(
            f"ranker {ranker.name}: search.latency_weight has nothing to weigh: all trials would be equally fast",
            f"expected one of {', '.join(SERVED)} in search.space",
        )


def hyperopt_space(search: Search) -> dict[str, Any]:
    """`search.space` as Hyperopt expressions, each labelled with its dotted path."""
    space: dict[str, Any] = {}
    for path, form in search.space.items():
        if isinstance(form, LogUniform):
            low, high = form.loguniform
            if not 0 < low < high:
                raise ConfigurationError(
                    f"search.space: {path}: loguniform needs 0 < low < high", f"got {low}, {high}"
                )
            space[path] = hp.loguniform(path, math.log(low), math.log(high))
        elif isinstance(form, Choice):
            space[path] = hp.choice(path, list(form.choice))
        else:
            low, high = form.uniform
            if not low < high:
                raise ConfigurationError(
                    f"search.space: {path}: uniform needs low < high", f"got {low}, {high}"
                )
            space[path] = hp.uniform(path, low, high)
    return space


def plain_values(space: dict[str, Any], draws: Draws) -> dict[str, Any]:
    """The ranker values of `draws`, as Python's own numbers and strings."""
    return {path: _plain(value) for path, value in space_eval(space, draws).items()}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _ends(form: Any) -> tuple[Any, ...]:
    return tuple(next(iter(form.model_dump().values())))
