"""The form of a ranker file's `watch`: what counts as wrong, and how far the watch may go by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reshelve.config.yaml_models import Form, Share, misfit

HourOfDay = Annotated[int, Field(ge=0, le=23)]


class Guard(Form):
    """Limits on automatic actions."""

    acts: tuple[Literal["roll back", "withdraw", "hold", "retrain"], ...] = Field(
        ("roll back", "withdraw", "hold", "retrain"),
        description="Actions allowed without a person; the others become alerts.",
    )
    cooldown_minutes: float = Field(
        60,
        ge=0,
        le=10_080,
        description="Minimum minutes between two automatic actions; a release freeze is exempt.",
    )
    actions_a_day: int = Field(
        3, ge=0, le=100, description="Maximum automatic actions in 24 hours, not counting release freezes."
    )
    repeat_hours: float = Field(
        72, gt=0, le=720, description="An alert for a persisting condition is repeated after this many hours."
    )


class Season(Form):
    """Anomaly detection: each hour is compared with the same hour of the same weekday, by median and MAD."""

    days: int = Field(43, ge=22, le=180, description="Days of hourly data kept for comparison.")
    least: int = Field(
        4, ge=3, le=20, description="Minimum number of earlier weeks; with fewer there is no comparison."
    )
    deviations: float = Field(
        8,
        ge=3,
        le=100,
        description="Robust standard deviations from the median that count as anomalous.",
    )
    hours: int = Field(2, ge=1, le=24, description="Consecutive anomalous hours before an alert.")

    @model_validator(mode="after")
    def _can_be_told(self) -> Season:
        weeks = (self.days - 1) // 7
        if self.least > weeks:
            raise misfit(f"{self.days} days hold {weeks} earlier weeks: expected at most those", "least")
        return self


class Watch(Form):
    """Monitoring while the ranker serves: every ten minutes, by `reshelve monitor`."""

    min_requests: int = Field(
        100,
        ge=20,
        description="Minimum number of a version's requests before its errors and latencies are evaluated.",
    )
    max_error_rate: Share = Field(
        0.02, description="A version whose error rate is significantly above this is bad."
    )
    max_refusal_rate: Share = Field(
        0.05,
        description="Model servers that refuse significantly more than this share of the attempts because all "
        "threads are busy are overloaded: an alert is sent, and no version is blamed.",
    )
    max_p95_ms: float | None = Field(
        None,
        gt=0,
        description="A version whose p95 latency is significantly above this is bad; null: it is only compared "
        "with the previous version, by release.max_latency_ratio.",
    )
    blame_hours: float = Field(
        24,
        gt=0,
        le=720,
        description="For this many hours after a version became stable, problems are blamed on it and cause a "
        "rollback; later ones are blamed on the service.",
    )
    max_input_shift: float = Field(
        0.35, gt=0, description="Maximum population stability index of the inputs (length, topic)."
    )
    max_score_shift: float = Field(
        0.35,
        gt=0,
        description="Maximum population stability index of a version's top scores, compared with its own first ones.",
    )
    max_click_drop: Share = Field(
        0.02,
        description="A version whose click-through is significantly lower than its predecessor's by more than "
        "this share of it, in sessions that could have got either, is bad (needs the request log and "
        "a canary).",
    )
    drift_requests: int = Field(
        1000, ge=100, description="Minimum number of answers before a distribution is compared."
    )
    agent_minutes: float = Field(
        2, gt=0, le=1440, description="An agent that has not reported for this many minutes counts as dead."
    )
    silent_requests: int = Field(
        50,
        ge=10,
        description="No traffic: no request although at least this many were expected (from each of the three "
        "looks before, and the same hour of earlier weeks).",
    )
    partition_by: HourOfDay | None = Field(
        None,
        description="The hour (UTC) by which yesterday's partition must have its verdict; null: not checked.",
    )
    night_by: HourOfDay | None = Field(
        None,
        description="The hour (UTC) by which yesterday's night must have published or been rejected; null: not checked.",
    )
    keep_days: int = Field(
        90, ge=1, le=3650, description="How many days monitoring data and request logs are kept."
    )
    season: Season = Season()  # type: ignore[call-arg]
    guard: Guard = Guard()  # type: ignore[call-arg]
