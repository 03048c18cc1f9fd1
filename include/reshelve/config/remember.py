"""The section `remember` of a ranker file: what of customers' behaviour outlives the night that read it."""

from __future__ import annotations

from pydantic import Field

from reshelve.config.yaml_models import Form


class Privacy(Form):
    """Differentially private counts (search), by OpenDP. What they promise, and what not: docs/how-to/add-noise-to-counts.md."""

    epsilon: float | None = Field(
        None,
        ge=0.01,
        le=100,
        description="ε of one night, for one customer: smaller means more noise and a stronger promise. Needs the extra "
        "`privacy`. null: exact counts.",
    )
    delta: float = Field(
        1e-6,
        ge=1e-12,
        le=1e-4,
        description="δ of one night: how likely it may be at most that ε does not hold, as when a text of one customer alone "
        "passes the threshold. Well below 1 divided by the number of customers.",
    )
    per_customer: int = Field(
        5,
        ge=1,
        le=1000,
        description="So many pairs of query and item are counted of one customer in the window, the newest. More keep more of what "
        "frequent customers chose, and need more noise.",
    )

    @property
    def on(self) -> bool:
        """Whether counts get noise."""
        return self.epsilon is not None


class Remember(Form):
    """Which queries a version, a report or a recorded request may hold: those of several customers, on several days."""

    customers: int = Field(
        3,
        ge=1,
        le=1000,
        description="A query, or a part of one, is remembered if at least this many customers have asked it. What one or two "
        "people ask may name them. 1, with days: 1, remembers everything: for comparisons only.",
    )
    days: int = Field(
        2,
        ge=1,
        le=365,
        description="And on at least this many days: one visitor with many ids on one day is not many customers.",
    )
    privacy: Privacy = Privacy()  # type: ignore[call-arg]
