"""What agents say really serves: `deployments/<ranker>/agents/<name>.json`."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from reshelve.logs import logger
from reshelve.names import Address, AgentName, Version, Words, require_ranker
from reshelve.protocol.host import HostUse
from reshelve.store.layout import deployments_of
from reshelve.store.objects import ObjectStore

LIVE_SECONDS = 60.0


class Serving(BaseModel):
    """What a model server has of one ranker."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stable: Version | None = Field(None, description="The version that the label stable answers with.")
    previous: Version | None = Field(None, description="The pointer's previous version, where it is loaded.")
    canary: Version | None = Field(None, description="The version that the label canary answers with.")
    available: tuple[Version, ...] = Field((), description="Loaded versions, ascending.")
    labels: dict[Words, Version] = Field(default_factory=dict)


class Report(BaseModel):
    """One agent on one ranker."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent: AgentName
    server: Address = Field(description="gRPC address of its model server.")
    at: datetime
    sequence: int = Field(description="The newest move of the pointer that the agent has seen.")
    serving: Serving = Serving()  # type: ignore[call-arg]
    failures: dict[Version, str] = Field(
        default_factory=dict, description="Versions that cannot be served here, and why."
    )
    error: str | None = None
    host: HostUse = HostUse()  # type: ignore[call-arg]

    _age: float | None = PrivateAttr(None)

    def age(self) -> float:
        """Seconds since it was written; where it was read from the store, by the store's clock, not the agent's."""
        return self._age if self._age is not None else (datetime.now(UTC) - self.at).total_seconds()

    def same_as(self, other: Report | None) -> bool:
        """Equal but for the time, and for what the host has left."""
        return other is not None and self == other.model_copy(update={"at": self.at, "host": self.host})


def _prefix(ranker: str) -> str:
    return f"{deployments_of(require_ranker(ranker))}agents/"


def write_report(store: ObjectStore, ranker: str, report: Report) -> None:
    """Replace the agent's report."""
    store.put_json(f"{_prefix(ranker)}{report.agent}.json", report.model_dump(mode="json"))


def read_reports(store: ObjectStore, ranker: str) -> list[Report]:
    """The newest report of every agent that ever reported. One that is damaged is left out, with a warning."""
    found = []
    for key, _ in store.list(_prefix(ranker)):
        document = store.get(key)
        try:
            if document is not None:
                report = Report.model_validate_json(document.body)
                if key != f"{_prefix(ranker)}{report.agent}.json":
                    logger().warning("ignored a report under another name", key=key)
                    continue
                report._age = document.age
                found.append(report)
        except ValidationError as error:
            logger().warning("a report is damaged", key=key, problem=str(error.errors()[0]["msg"]))
    return found


def live_reports(store: ObjectStore, ranker: str) -> list[Report]:
    """Reports of agents that live: younger than 60 s."""
    return [report for report in read_reports(store, ranker) if report.age() < LIVE_SECONDS]
