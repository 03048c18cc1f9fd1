"""The form of a ranker file's `release`: how a promoted version reaches customers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from reshelve.forms import Form, Share, misfit


class Shadow(Form):
    """Before any customer: the new version answers recorded requests beside the stable one."""

    requests: int = Field(
        0, ge=0, le=10_000, description="Recorded requests replayed on both versions; 0 leaves this out."
    )
    min_agreement: Share = Field(
        0.0,
        description="Rolled back where the answers agree less than this on average (top 10 in common; pair: Spearman).",
    )


class CanaryClicks(Form):
    """What customers clicked: known once their days' partitions are validated; needs the request log."""

    max_drop: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Rolled back where the sessions that got the canary surely click less than those that got stable by more "
        "than this share of its click-through; held until they surely do not. null: clicks are not waited for.",
    )
    min_sessions: int = Field(
        1000, ge=100, description="Least sessions of each version before that is judged."
    )
    wait_hours: float = Field(
        72,
        gt=0,
        le=720,
        description="So long after the canary's first customer an estimate within max_drop is enough; with fewer than "
        "min_sessions it stays held.",
    )


class Canary(Form):
    """The first customers: a share of the sessions, in steps."""

    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="Rising shares of the sessions, as in [0.05, 0.25]; empty promotes after the probe."
    )
    min_requests: int = Field(
        200, ge=20, description="Least requests of the canary in a step before it is judged."
    )
    max_error_increase: Share = Field(
        0.005, description="Rolled back where the canary's error rate is surely higher by more than this."
    )
    step_minutes: float = Field(
        60, gt=0, le=1440, description="After so long without a verdict a step holds: exit 75, ask again."
    )
    clicks: CanaryClicks = CanaryClicks()  # type: ignore[call-arg]


class Release(Form):
    """How a promoted version reaches customers."""

    automatic: bool = Field(True, description="Release after a promote verdict; otherwise publish only.")
    ready_seconds: int = Field(
        300, ge=5, le=86_400, description="How long every agent may take to load the version."
    )
    keep: int = Field(
        5, ge=2, description="Published versions that housekeeping keeps beside those that serve."
    )
    top: int = Field(100, ge=1, le=1000, description="next_item, search: items in an answer.")
    approval: bool = Field(
        False,
        description="Wait for a person before the promotion: Required Actions, the Releases page or `reshelve approve`.",
    )
    approval_hours: float = Field(
        12,
        gt=0,
        le=168,
        description="A release that nobody answered for so long is taken back; stable serves on.",
    )
    max_latency_ratio: float = Field(
        1.5,
        ge=1,
        description="Shadow, canary: rolled back where it surely is slower than stable by more than this.",
    )
    shadow: Shadow = Shadow()  # type: ignore[call-arg]
    canary: Canary = Canary()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _shares_rise(self) -> Release:
        if list(self.canary.shares) != sorted(set(self.canary.shares)):
            raise misfit("expected rising shares", "canary", "shares")
        if self.canary.clicks.max_drop is not None and not self.canary.shares:
            said = "only a canary's sessions can be compared: expected canary.shares"
            raise misfit(said, "canary", "clicks", "max_drop")
        if self.shadow.min_agreement and not self.shadow.requests:
            said = "nothing is replayed: expected shadow.requests above 0"
            raise misfit(said, "shadow", "min_agreement")
        return self
