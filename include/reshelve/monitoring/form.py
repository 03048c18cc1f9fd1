"""The form of a ranker file's `watch`: what counts as wrong, and how far the watch may go by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reshelve.forms import Form, Share, misfit

HourOfDay = Annotated[int, Field(ge=0, le=23)]


class Guard(Form):
    """Bounds on what the watch does by itself."""

    acts: tuple[Literal["roll back", "withdraw", "hold", "retrain"], ...] = Field(
        ("roll back", "withdraw", "hold", "retrain"),
        description="What may be done without a person; what is left out becomes an alert.",
    )
    cooldown_minutes: float = Field(
        60, ge=0, le=10_080, description="Least minutes between two automatic actions; a hold needs none."
    )
    actions_a_day: int = Field(
        3, ge=0, le=100, description="Most automatic actions in 24 hours, holds left out."
    )
    repeat_hours: float = Field(
        72, gt=0, le=720, description="A condition that lasts is told again after so many hours."
    )


class Season(Form):
    """What an hour is compared with: the same hour of the same weekday, by median and MAD."""

    days: int = Field(43, ge=22, le=180, description="Days of hours that are remembered.")
    least: int = Field(
        4, ge=3, le=20, description="Least earlier weeks to compare with; fewer, and nothing is said."
    )
    deviations: float = Field(
        8,
        ge=3,
        le=100,
        description="Robust standard deviations from the median that are out of the ordinary.",
    )
    hours: int = Field(2, ge=1, le=24, description="Hours in a row that have to be, before it is told.")

    @model_validator(mode="after")
    def _can_be_told(self) -> Season:
        weeks = (self.days - 1) // 7
        if self.least > weeks:
            raise misfit(f"{self.days} days hold {weeks} earlier weeks: expected at most those", "least")
        return self


class Watch(Form):
    """What is watched over while the ranker serves: every ten minutes, by `reshelve monitor`."""

    min_requests: int = Field(
        100, ge=20, description="Least requests of a version before its errors and latencies are judged."
    )
    max_error_rate: Share = Field(
        0.02, description="A version whose share of failed requests surely is above this is bad."
    )
    max_refusal_rate: Share = Field(
        0.05,
        description="Model servers that surely refuse more than this share of the tries for want of a free thread are "
        "overloaded: people are told, and no version is blamed.",
    )
    max_p95_ms: float | None = Field(
        None,
        gt=0,
        description="A version whose 95th percentile surely is above this is bad; null: only compared with the version "
        "before it, by release.max_latency_ratio.",
    )
    blame_hours: float = Field(
        24,
        gt=0,
        le=720,
        description="What goes wrong so long after a version became stable is blamed on it, and rolled back; later it is "
        "blamed on the service.",
    )
    max_input_shift: float = Field(
        0.35, gt=0, description="Most population stability index of what customers ask (length, topic)."
    )
    max_score_shift: float = Field(
        0.35,
        gt=0,
        description="Most population stability index of a version's best scores beside its own first ones.",
    )
    max_click_drop: Share = Field(
        0.02,
        description="A version whose click-through surely is lower than its forerunner's by more than this share of it, in sessions "
        "that could have got either, is bad (needs the request log and a canary).",
    )
    drift_requests: int = Field(
        1000, ge=100, description="Answers that a distribution is made of before it is compared."
    )
    agent_minutes: float = Field(
        2, gt=0, le=1440, description="An agent that has not reported for so long is dead."
    )
    silent_requests: int = Field(
        50,
        ge=10,
        description="No traffic: not one request where at least so many were to be expected (each of three looks before; the same hour).",
    )
    partition_by: HourOfDay | None = Field(
        None, description="The hour (UTC) by which yesterday's partition has its verdict; null: not watched."
    )
    night_by: HourOfDay | None = Field(
        None,
        description="The hour (UTC) by which yesterday's night has published or been judged; null: not watched.",
    )
    keep_days: int = Field(90, ge=1, le=3650, description="Days that looks and request logs are kept.")
    season: Season = Season()  # type: ignore[call-arg]
    guard: Guard = Guard()  # type: ignore[call-arg]
