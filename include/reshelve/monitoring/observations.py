"""What one look at a ranker found and decided: `monitoring/<ranker>/<YYYY-MM-DD>/<HHMMSS>.json`, written once.

Days are folders, so the newest looks are found without listing the old ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reshelve.logs import logger
from reshelve.names import AgentName, RankerName, Version, Words, is_day, require_ranker
from reshelve.store.layout import monitoring_of
from reshelve.store.objects import ObjectStore, PreconditionFailedError

_READERS = 8


class VersionRole(StrEnum):
    """What a version was when it was looked at."""

    STABLE = "stable"
    CANARY = "canary"
    PREVIOUS = "previous"
    OTHER = "other"


class Condition(StrEnum):
    """What may be found. `monitoring.decisions.TABLE` says what each leads to."""

    BAD_CANARY = "bad canary"
    BAD_VERSION = "bad version"
    BAD_SERVICE = "bad service"
    BROKEN_DATA = "broken data"
    DRIFT = "drift"
    DEAD_AGENT = "dead agent"
    NO_TRAFFIC = "no traffic"
    LATE = "late"
    ODD = "out of the ordinary"
    TAMPERED = "tampered with"
    INCONCLUSIVE = "inconclusive"
    QUIET = "quiet"


class Action(StrEnum):
    """What may be done."""

    ROLL_BACK = "roll back"
    WITHDRAW = "withdraw"
    HOLD = "hold"
    RETRAIN = "retrain"
    ALERT = "alert"
    NOTHING = "nothing"


class _ObservationPart(BaseModel):
    """Read back by later code: what it does not know, it leaves out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class VersionTraffic(_ObservationPart):
    """What callers measured of one version since the look before."""

    version: Version
    role: VersionRole
    requests: int = 0
    errors: int = Field(0, description="Requests that the server or the version failed.")
    rejected: int = Field(0, description="Requests that did not fit: their callers' errors.")
    refusals: int = Field(0, description="Tries that servers refused because no thread is free.")
    p50_ms: float | None = Field(None, description="None where nothing was answered.")
    p95_ms: float | None = None
    p99_ms: float | None = None
    clicks: int | None = Field(None, description="Logged requests that led to a click; None: not joined yet.")
    clickable: int | None = Field(None, description="Logged requests whose time for a click is over.")

    @property
    def error_rate(self) -> float | None:
        """Of the requests that fit; None without any."""
        fit = self.requests - self.rejected
        return self.errors / fit if fit else None

    @property
    def click_through(self) -> float | None:
        """None where nothing was joined."""
        return None if not self.clickable or self.clicks is None else self.clicks / self.clickable


class AgentSeen(_ObservationPart):
    """An agent's last report, and its model server."""

    agent: AgentName
    live: bool
    age_seconds: float
    stable: int | None = None
    error: str | None = None
    sequence: int = Field(0, description="The newest move that it says it follows.")
    memory_bytes: int | None = Field(None, description="Resident memory of its model server.")
    memory_share: float | None = Field(None, description="Share of its machine's memory that is in use.")
    disk_share: float | None = Field(None, description="Share of its disk that is in use.")


class Finding(_ObservationPart):
    """One thing that was found."""

    condition: Condition
    check: str = Field(description="What was measured: errors, latency, traffic, inputs, scores, agents, …")
    reason: str = Field(description="One sentence for a person, with the numbers.")
    version: int | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)

    @property
    def cause(self) -> str:
        """What the guard remembers: it does not act twice for one cause."""
        about = self.evidence.get("cause", "" if self.version is None else self.version)
        return f"{self.condition.value}: {self.check} {about}".strip()


class WatchDecision(_ObservationPart):
    """What the table answered, and what became of it."""

    condition: Condition
    action: Action = Field(
        description="What is done: the table's answer, or alert where the guard refused it."
    )
    reason: str
    cause: str = ""
    version: int | None = Field(None, description="The version it is about.")
    refused: str = Field(
        "", description="Why the guard kept the table's answer from being done; empty: it did not."
    )
    done: str = Field("", description="What was done, or would be (dry run); empty: nothing to do.")
    alert: bool = Field(
        False, description="Whether people are told: a condition is told once, and again when it changes."
    )


class Observation(_ObservationPart):
    """One look at one ranker."""

    ranker: RankerName
    at: datetime
    since: datetime | None = Field(None, description="The look before; None: this was the first.")
    sequence: int = Field(
        0, description="The pointer's move that was in force; 0: nothing has been released."
    )
    versions: tuple[VersionTraffic, ...] = ()
    agents: tuple[AgentSeen, ...] = ()
    measured: dict[Words, float] = Field(
        default_factory=dict,
        description="Further numbers by name: drift of inputs and scores, calibration, …",
    )
    findings: tuple[Finding, ...] = ()
    decision: WatchDecision | None = None
    held: str = Field("", description="Why releases are frozen; empty: they are not.")


def prefix(ranker: str) -> str:
    """Where a ranker's looks are."""
    return monitoring_of(require_ranker(ranker))


def write(store: ObjectStore, observation: Observation) -> str:
    """Keep a look; its key. A look of the same second is not replaced."""
    key = f"{prefix(observation.ranker)}{observation.at:%Y-%m-%d/%H%M%S}.json"
    try:
        store.put_json(key, observation.model_dump(mode="json"), if_absent=True)
    except PreconditionFailedError:
        logger(ranker=observation.ranker).warning("there is a look of this second already", key=key)
    return key


def recent(store: ObjectStore, ranker: str, count: int) -> tuple[Observation, ...]:
    """The newest `count` looks, oldest first. A damaged one is left out, with a warning."""
    keys: list[str] = []
    for day in filter(is_day, reversed(store.folders(prefix(ranker)))):
        if len(keys) >= count:
            break
        keys = [key for key, _ in store.list(f"{prefix(ranker)}{day}/")] + keys
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda key: _read(store, key), keys[-count:] if count > 0 else []))
    return tuple(one for one in found if one is not None and one.ranker == ranker)


def _read(store: ObjectStore, key: str) -> Observation | None:
    document = store.get(key)
    try:
        return None if document is None else Observation.model_validate_json(document.body)
    except ValidationError as error:
        logger().warning("a stored look is damaged", key=key, problem=str(error.errors()[0]["msg"]))
        return None
