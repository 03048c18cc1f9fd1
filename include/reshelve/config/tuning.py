"""The form of a ranker file's `tuning`: what is tried, with how much of a training, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, model_validator

from reshelve.config.waves import MOST_PARALLEL, waves
from reshelve.config.yaml_models import Form, misfit

MOST_ROUNDS = 250  # of ask and evaluate: each is two tasks of the ranker's DAG

# What a trial reads and nothing before it has read: examples, start and judgement of all trials are the same.
TRAINED = tuple(
    f"training.{key}"
    for key in (
        "epochs", "batch_size", "learning_rate", "head_learning_rate", "weight_decay", "warmup_share", "accumulate",
        "adversarial",
    )
)  # fmt: skip
# What may differ by trial beside training: it changes the model that is served and not the examples.
SERVED = ("model.layers",)


class LogUniform(Form):
    """A rate-like hyperparameter."""

    loguniform: tuple[float, float]

    @property
    def values(self) -> tuple[float, ...]:
        """Its ends."""
        return self.loguniform

    @model_validator(mode="after")
    def _a_range(self) -> LogUniform:
        if not 0 < self.loguniform[0] < self.loguniform[1]:
            raise misfit(f"expected 0 < low < high, got {list(self.loguniform)}")
        return self


class Uniform(Form):
    """A share-like hyperparameter."""

    uniform: tuple[float, float]

    @property
    def values(self) -> tuple[float, ...]:
        """Its ends."""
        return self.uniform

    @model_validator(mode="after")
    def _a_range(self) -> Uniform:
        if not self.uniform[0] < self.uniform[1]:
            raise misfit(f"expected low < high, got {list(self.uniform)}")
        return self


class Choice(Form):
    """One of a few values."""

    choice: tuple[float | int | str, ...] = Field(min_length=2)

    @property
    def values(self) -> tuple[float | int | str, ...]:
        """All of them."""
        return self.choice

    @model_validator(mode="after")
    def _each_once(self) -> Choice:
        if len(set(self.choice)) < len(self.choice):
            raise misfit("expected each value once")
        return self


def _which(value: Any) -> str | None:
    """The one key that says what kind of range it is."""
    keys = list(value) if isinstance(value, Mapping) else list(getattr(type(value), "model_fields", ()))
    return keys[0] if len(keys) == 1 else None


Range = Annotated[
    Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(
        _which,
        custom_error_type="range",
        custom_error_message="expected one of {loguniform: [low, high]}, {uniform: [low, high]} and {choice: [a, b]}",
    ),
]


class Halving(Form):
    """Trials begin small, and only the best go on."""

    eta: int = Field(3, ge=2, le=100, description="The best 1/eta continue, with eta times the budget.")
    bracket: int | None = Field(
        None, ge=1, description="Trials that start together; null: enough to leave one at the full budget."
    )
    finalists: int = Field(
        1, ge=1, description="At least this many of a bracket continue each time, up to the full budget."
    )
    min_share: float = Field(
        gt=0, le=1, description="Minimum share of a full training that a trial starts with."
    )


class Tuning(Form):
    """Hyperparameter tuning."""

    trials: int = Field(
        4, ge=0, le=500, description="Number of trials; 0: no tuning, training uses the file's values."
    )
    parallel: int = Field(2, ge=1, le=MOST_PARALLEL, description="Trials run in parallel.")
    budget_share: float = Field(
        0.2, gt=0, le=1, description="Budget of a trial, as a share of a full training."
    )
    halving: Halving | None = Field(
        None,
        description="Successive halving: trials start with the share `min_share` of a full training; one in "
        "`eta` continues, for `eta` times as long, up to `budget_share`. See "
        "how-to/tune-hyperparameters.",
    )
    rate_exponent: float = Field(
        0,
        ge=0,
        le=1,
        description="Short trainings need higher learning rates: a trial with the share s of a full training "
        "multiplies both peak rates by (1 / s)^rate_exponent (with 0.3 and s = 1/9, by 1.9). 0: off.",
    )
    nights: int = Field(14, ge=0, le=365, description="How many past nights' trials are used; 0: none.")
    latency_weight: float = Field(
        0,
        ge=0,
        description="Loss added per millisecond of the compressed model's latency; needs `model.layers` in the space.",
    )
    max_minutes: float = Field(
        10,
        gt=0,
        le=1440,
        description="Tuning stops after this many minutes, including running trials.",
    )
    price_per_hour: float = Field(
        0,
        ge=0,
        description="Price of one trial for an hour, in any currency: the machine's price divided by its parallel trials.",
    )
    max_cost: float | None = Field(
        None, ge=0, description="Maximum cost of tuning, in that currency; stops it as `max_minutes` does."
    )
    seed: int = Field(17, ge=0, lt=2**32, description="Random seed of the proposals.")
    space: dict[str, Range] = Field(
        default_factory=dict, description="Dotted path of a ranker key (training.learning_rate) → its range."
    )

    @model_validator(mode="after")
    def _budgets_fit(self) -> Tuning:
        if self.halving and self.halving.min_share > self.budget_share:
            raise misfit("min_share is more than budget_share", "halving", "min_share")
        if self.max_cost is not None and not self.price_per_hour:
            raise misfit("max_cost needs price_per_hour", "max_cost")
        return self

    @model_validator(mode="after")
    def _rounds_fit(self) -> Tuning:
        if sum(1 for _ in islice(waves(self), MOST_ROUNDS + 1)) > MOST_ROUNDS:
            raise misfit(
                f"more than {MOST_ROUNDS} rounds of trials: expected fewer trials, more parallel, or less halving",
                "trials",
            )
        return self

    @property
    def points(self) -> int | None:
        """How many points the space has; None where a range cannot be counted, or there is nothing to tune."""
        sizes = [len(form.choice) for form in self.space.values() if isinstance(form, Choice)]
        return math.prod(sizes) if sizes and len(sizes) == len(self.space) else None

    @property
    def most_trials(self) -> int:
        """How many are tried at most: no point is tried twice."""
        return self.trials if self.points is None else min(self.trials, self.points)


def check_space(space: Mapping[str, Range], sections: Mapping[str, BaseModel]) -> None:
    """Every key may be tuned, and every value and end of its range is one that `sections`, by name, take.

    Raises pydantic's ValidationError.
    """
    for path, form in space.items():
        section, _, key = path.partition(".")
        if path not in (*TRAINED, *SERVED):
            raise misfit(_not_tuned(path), "tuning", "space", path)
        model = sections[section]
        kind = type(model).model_fields[key].annotation
        if not isinstance(form, Choice) and float not in (kind, *get_args(kind)):
            raise misfit("an integer: expected {choice: [a, b]}", "tuning", "space", path)
        for value in form.values:
            try:
                type(model).model_validate({**model.model_dump(), key: value})
            except ValidationError as error:
                raise misfit(f"{value!r}: {error.errors()[0]['msg']}", "tuning", "space", path) from error


def _not_tuned(path: str) -> str:
    if path == "training.loss":
        return "it cannot be tuned: losses of two kinds cannot be compared"
    keys = f"a key of training that a trial uses ({', '.join(TRAINED)}) or {', '.join(SERVED)}"
    return f"it cannot be tuned: expected {keys}"
