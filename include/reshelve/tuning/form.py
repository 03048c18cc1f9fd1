"""The form of a ranker file's `search`: what is tried, with how much of a training, and when it ends."""

from __future__ import annotations

from pydantic import Field, model_validator

from reshelve.forms import Form

MOST_PARALLEL = 64  # trials of a search side by side
MOST_ROUNDS = 250  # of ask and evaluate: each is two tasks of the ranker's DAG


class LogUniform(Form):
    """A rate-like hyperparameter."""

    loguniform: tuple[float, float]


class Uniform(Form):
    """A share-like hyperparameter."""

    uniform: tuple[float, float]


class Choice(Form):
    """One of a few values."""

    choice: tuple[float | int | str, ...] = Field(min_length=2)


class Halving(Form):
    """Trials begin small, and only the best go on."""

    eta: int = Field(3, ge=2, le=100, description="The best 1/eta go on, with eta times the budget.")
    bracket: int | None = Field(
        None, ge=1, description="Trials that begin together; null: as many as leave one at the full budget."
    )
    finalists: int = Field(
        1, ge=1, description="At least so many of a bracket go on each time, up to the full budget."
    )
    min_share: float = Field(
        gt=0, le=1, description="Least share of a full training that a trial begins with."
    )


class Search(Form):
    """The hyperparameter search of a night."""

    trials: int = Field(4, ge=0, le=500, description="0 trains with the file's own values.")
    parallel: int = Field(2, ge=1, le=MOST_PARALLEL, description="Trials asked for at once.")
    budget_share: float = Field(0.2, gt=0, le=1, description="Share of a full training that one trial costs.")
    halving: Halving | None = Field(
        None,
        description="`{eta: 3, min_share: 0.02}`: trials begin with about that share of a full training, the best "
        "third go on with three times that, up to `budget_share`.",
    )
    rate_exponent: float = Field(
        0,
        ge=0,
        le=1,
        description="A trial of a share of a full training trains with its rates times share^-rate_exponent: shorter "
        "trainings want higher rates. 0.3 is usual, 0 leaves them as they are.",
    )
    nights: int = Field(
        14, ge=0, le=365, description="Newest past nights whose trials tonight learns from; 0 for none."
    )
    latency_weight: float = Field(
        0,
        ge=0,
        description="Loss that a millisecond of the compressed model's latency weighs; needs `model.layers` in the space.",
    )
    max_minutes: float = Field(
        10,
        gt=0,
        le=1440,
        description="No trial starts after this many minutes, and those that run are stopped.",
    )
    price_per_hour: float = Field(
        0,
        ge=0,
        description="What an hour of one trial costs, in any currency: the machine's price, shared by its trials.",
    )
    max_cost: float | None = Field(
        None, ge=0, description="Most that a search may cost, in that currency; stops as `max_minutes` does."
    )
    seed: int = Field(17, description="Decides the order of the proposals.")
    space: dict[str, LogUniform | Uniform | Choice] = Field(
        default_factory=dict, description="Dotted path of a ranker key (training.learning_rate) → its range."
    )

    @model_validator(mode="after")
    def _budgets_fit(self) -> Search:
        if self.halving and self.halving.min_share > self.budget_share:
            raise ValueError("halving.min_share is more than budget_share")
        if self.max_cost is not None and not self.price_per_hour:
            raise ValueError("max_cost needs price_per_hour")
        return self

    @model_validator(mode="after")
    def _rounds_fit(self) -> Search:
        from itertools import islice

        from reshelve.tuning.plan import waves

        if sum(1 for _ in islice(waves(self), MOST_ROUNDS + 1)) > MOST_ROUNDS:
            raise ValueError(
                f"more than {MOST_ROUNDS} rounds of trials: expected fewer trials, more parallel, or less halving"
            )
        return self
