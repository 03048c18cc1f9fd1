"""The form of a ranker file's `release`: how a promoted version reaches customers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from reshelve.config.yaml_models import Form, Share, misfit


class Shadow(Form):
    """Before customers get it: recorded requests are sent to the new and the stable version."""

    requests: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Number of recorded requests to replay on both versions; 0: no shadow.",
    )
    min_agreement: Share = Field(
        0.0,
        description="Rolled back if the answers agree less than this on average (overlap of the top 10; pair: Spearman).",
    )


class CanaryClicks(Form):
    """Click-through comparison: available once the days' partitions are validated; needs the request log."""

    max_drop: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Rolled back if the canary's click-through is significantly lower than stable's by more than "
        "this share of it; held until that can be ruled out. null: do not wait for clicks.",
    )
    min_sessions: int = Field(
        1000, ge=100, description="Minimum number of sessions of each version before clicks are compared."
    )
    wait_hours: float = Field(
        72,
        gt=0,
        le=720,
        description="After this many hours since the canary's first customer an estimate within max_drop is "
        "enough; with fewer than min_sessions it stays held.",
    )


class Canary(Form):
    """Rollout to a rising share of the sessions, in steps."""

    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="Rising shares of the sessions, as in [0.05, 0.25]; empty: promoted after the probe."
    )
    min_requests: int = Field(
        200, ge=20, description="Minimum number of the canary's requests in a step before it is evaluated."
    )
    max_error_increase: Share = Field(
        0.005, description="Rolled back if the canary's error rate is significantly higher by more than this."
    )
    step_minutes: float = Field(
        60,
        gt=0,
        le=1440,
        description="A step still inconclusive after this many minutes is held (exit 75; run it again).",
    )
    clicks: CanaryClicks = CanaryClicks()  # type: ignore[call-arg]


class Index(Form):
    """The index of the shop's own search engine, which has to hold the version before customers get it."""

    url: str | None = Field(
        None,
        examples=["https://search.shop.example/items/version"],
        description="head: titles: the address, http or https, that answers with the version whose vectors the shop's index "
        'holds, as `{"version": "20110831001"}`; null: no index is waited for.',
    )
    minutes: float = Field(
        60,
        gt=0,
        le=1440,
        description="A release whose version is not in the index within this many minutes is held (exit 75; run it again).",
    )

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str | None) -> str | None:
        """Ranker files are no place for secrets, and the address is written to logs by its host."""
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            known = False
        if not known or re.search(r"[\s\x00-\x1f\x7f]", url):
            raise ValueError("expected an http or https address, as in https://search.shop.example/version")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("expected an address without a name, a password or a fragment")
        return url


class Release(Form):
    """How a promoted version reaches customers."""

    automatic: bool = Field(
        True, description="Release automatically after a *promote* verdict; false: publish only."
    )
    ready_seconds: int = Field(
        300, ge=5, le=86_400, description="Time limit in seconds for all agents to load the version."
    )
    keep: int = Field(
        5,
        ge=2,
        description="Number of published versions that housekeeping keeps, in addition to the serving ones.",
    )
    top: int = Field(100, ge=1, le=1000, description="next_item, search: number of items in an answer.")
    candidates: int = Field(
        1024,
        ge=64,
        le=16_384,
        description="search: products that are ranked for one query, where the catalogue has more than four times as many; "
        "else all are.",
    )
    max_rows: int | None = Field(
        None,
        ge=32,
        le=16_384,
        description="Rows that one request may have; more are refused. null: 64 questions (next_item, search), 1024 "
        "candidates (pair, and `score` of search). search: fewer questions, if a large catalogue's version can number no more.",
    )
    approval: bool | Literal["another_person"] = Field(
        False,
        description="Wait for a person's approval before the promotion: in Required Actions, on the Releases "
        "page or with `reshelve approve`. another_person: who requested the release may not approve it.",
    )
    approval_hours: float = Field(
        12,
        gt=0,
        le=168,
        description="A release not approved within this many hours is withdrawn; the stable version keeps serving.",
    )
    max_latency_ratio: float = Field(
        1.5,
        ge=1,
        description="Shadow, canary: rolled back if significantly slower than stable by more than this factor.",
    )
    shadow: Shadow = Shadow()  # type: ignore[call-arg]
    index: Index = Index()  # type: ignore[call-arg]
    canary: Canary = Canary()  # type: ignore[call-arg]

    def steps(self) -> dict[str, Any]:
        """What a release has between the probe and the promotion: `shadow`, `index`, `shares`, `approval`, `another_person`."""
        return {
            "shadow": self.shadow.requests > 0,
            "index": self.index.url is not None,
            "shares": self.canary.shares,
            "approval": bool(self.approval),
            "another_person": self.approval == "another_person",
        }

    @field_validator("approval", mode="before")
    @classmethod
    def _who_approves(cls, value: Any) -> Any:
        if not isinstance(value, bool) and value != "another_person":
            raise ValueError("expected true, false or another_person")
        return value

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
