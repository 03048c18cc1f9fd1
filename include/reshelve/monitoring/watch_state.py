"""What one look hands to the next: `monitoring/<ranker>/memory.json`, swapped, so that two looks at once never both act."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.monitoring.observations import Action, Finding, Observation, WatchDecision, prefix, recent
from reshelve.protocol.traffic import Counts, TrafficReport
from reshelve.store.objects import ObjectStore, PreconditionFailedError

Cumulative = dict[int, dict[int, Counts]]  # the pointer's move → version → counts

_MOVES_KEPT = (
    2  # a client counts into the newest move it knows; one request may be under way in the move before
)
_ACTS_KEPT = 100
_LOOKS_READ = 200
_TRIES = 5
_BASELINE_REQUESTS = 100_000
_CALLERS_KEPT = 32
OTHERS = "the others"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class VersionRecord(_Part):
    """A version: what is not judged yet, what was judged good, and how its first answers scored."""

    window: Counts = Field(default_factory=Counts)
    callers: dict[str, Counts] = Field(default_factory=dict, description="The window by who counted it.")
    baseline: Counts = Field(default_factory=Counts)
    scoring: Counts = Field(default_factory=Counts)
    scores: dict[str, int] = Field(default_factory=dict)

    def count(self, counts: Counts, callers: dict[str, Counts]) -> None:
        """Add what came since the look before, without the histograms of what was asked. Callers beyond 32 are one."""
        self.window = self.window.plus(_bare(counts))
        for name, part in callers.items():
            place = name if name in self.callers or len(self.callers) < _CALLERS_KEPT else OTHERS
            self.callers[place] = self.callers.get(place, Counts()).plus(_bare(part))

    def begin_anew(self) -> None:
        """The window was judged."""
        self.window, self.callers = Counts(), {}

    def good(self) -> None:
        """The window is like what is good: it joins the baseline, whose old part fades."""
        if self.baseline.requests > _BASELINE_REQUESTS:
            self.baseline = _half(self.baseline)
        self.baseline = self.baseline.plus(_bare(self.window))


class Asked(_Part):
    """What customers ask: not compared yet, and what it is compared with."""

    window: Counts = Field(default_factory=Counts)
    reference: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="lengths, topics → bin → answers."
    )


class Hour(_Part):
    """One hour of all versions together."""

    at: datetime
    requests: int = 0
    errors: int = 0
    latency: dict[int, int] = Field(default_factory=dict)


class Stable(_Part):
    """The stable version, since when, and by which move."""

    version: int
    since: datetime
    came_by: str
    sequence: int = Field(0, description="The newest move that was read.")


class Act(_Part):
    """One automatic action. It is remembered before it is done, so that two looks never both do it."""

    at: datetime
    action: Action
    cause: str
    version: int | None = None
    settled: bool = Field(False, description="Whether it is known to have been done.")


class Told(_Part):
    """A cause that people were told of, and when it was last found."""

    at: datetime
    seen: datetime


class Memory(_Part):
    """All that a look needs of the looks before it. Bounded."""

    at: datetime | None = None
    clients: dict[str, Cumulative] = Field(default_factory=dict)
    versions: dict[int, VersionRecord] = Field(default_factory=dict)
    asked: Asked = Field(default_factory=Asked)
    hours: list[Hour] = Field(default_factory=list, description="Oldest first; the last one may not be over.")
    suspects: dict[str, int] = Field(
        default_factory=dict, description="Check → looks in a row that found it."
    )
    last_requests: list[int] = Field(default_factory=list, description="Of the looks before, oldest first.")
    asked_at: datetime | None = Field(None, description="The newest look that saw a request.")
    page: dict[str, float] = Field(
        default_factory=dict, description="The model server's page at the look before."
    )
    standing: dict[str, Finding] = Field(
        default_factory=dict, description="Check → what was found when it was last judged."
    )
    stable: Stable | None = None
    told: dict[str, Told] = Field(default_factory=dict, description="By cause.")
    acts: list[Act] = Field(default_factory=list)
    joined: date | None = Field(None, description="The newest day whose requests were joined with clicks.")

    def fresh(self, reports: Iterable[TrafficReport]) -> dict[str, dict[int, Counts]]:
        """Client → version → what was counted since the look before, which this remembers. The first look counts nothing."""
        found: dict[str, dict[int, Counts]] = {}
        clients: dict[str, Cumulative] = {}
        for report in reports:
            before = self.clients.get(report.client, {})
            newest = sorted(report.counts)[-_MOVES_KEPT:]
            for sequence in newest if self.at is not None else ():
                for version, counts in report.counts[sequence].items():
                    seen = before.get(sequence, {}).get(version, Counts())
                    new = counts.minus(seen)
                    if counts.requests < seen.requests or not new.adds_up:  # it began anew
                        new = counts
                    if new.requests:
                        mine = found.setdefault(report.client, {})
                        mine[version] = mine.get(version, Counts()).plus(new)
            clients[report.client] = {sequence: report.counts[sequence] for sequence in newest}
        self.clients = clients
        return found

    def add_hour(self, now: datetime, counts: Iterable[Counts], days: int) -> list[Hour]:
        """Count into the hour of `now`; the hour that is over since the look before, where one is."""
        start = now.replace(minute=0, second=0, microsecond=0)
        over = [self.hours[-1]] if self.hours and self.hours[-1].at < start else []
        if over or not self.hours:
            self.hours.append(Hour(at=start))  # hours that nobody looked at say nothing: they are left out
        hour = self.hours[-1]
        for one in counts:
            hour.requests += one.requests
            hour.errors += one.failed
            for place, number in one.latency.items():
                hour.latency[place] = hour.latency.get(place, 0) + number
        self.hours = [kept for kept in self.hours if kept.at > now - timedelta(days=days)]
        return over

    def keep_versions(self, wanted: Iterable[int]) -> None:
        """Forget versions that nothing is wanted of any more."""
        wanted = set(wanted)
        self.versions = {version: known for version, known in self.versions.items() if version in wanted}

    def begin(self, decision: WatchDecision, now: datetime) -> Act | None:
        """Remember that something is about to be done; None where nothing is. A hold needs no bounds."""
        if decision.action in (Action.ALERT, Action.NOTHING, Action.HOLD):
            return None
        act = Act(at=now, action=decision.action, cause=decision.cause, version=decision.version)
        self.acts = [*self.acts, act][-_ACTS_KEPT:]
        return act

    def settle(self, act: Act, *, happened: bool) -> None:
        """It was done, or it was not and may be tried again."""
        self.acts = [one for one in self.acts if (one.at, one.cause) != (act.at, act.cause)]
        if happened:
            self.acts = [*self.acts, act.model_copy(update={"settled": True})][-_ACTS_KEPT:]


def together(by_client: dict[str, dict[int, Counts]]) -> dict[int, Counts]:
    """Version → what all clients counted."""
    found: dict[int, Counts] = {}
    for by_version in by_client.values():
        for version, counts in by_version.items():
            found[version] = found.get(version, Counts()).plus(counts)
    return found


def _bare(counts: Counts) -> Counts:
    return counts.model_copy(update={"scores": {}, "lengths": {}, "topics": {}})


def _half(counts: Counts) -> Counts:
    return Counts(
        requests=counts.requests // 2,
        errors={name: number // 2 for name, number in counts.errors.items()},
        rejected={name: number // 2 for name, number in counts.rejected.items()},
        refusals=counts.refusals // 2,
        latency={place: number // 2 for place, number in counts.latency.items() if number > 1},
    )


def _key(ranker: str) -> str:
    return f"{prefix(ranker)}memory.json"


def read_memory(store: ObjectStore, ranker: str) -> tuple[Memory, str | None]:
    """The memory and its entity tag. A damaged one begins anew, with the actions that the looks tell of."""
    found = store.get(_key(ranker))
    if found is None:
        return Memory(), None
    try:
        return Memory.model_validate_json(found.body), found.etag
    except ValidationError as error:
        logger(ranker=ranker).error(
            "the watch's memory is damaged and starts over", problem=str(error.errors()[0]["msg"])
        )
        looks = recent(store, ranker, _LOOKS_READ)
        return Memory(acts=[act for look in looks for act in _acts(look)]), found.etag


def _acts(look: Observation) -> list[Act]:
    """What a look did, so that the guard's bounds outlive the memory."""
    made = look.decision
    if made is None or not made.done or made.action in (Action.ALERT, Action.NOTHING):
        return []
    return [Act(at=look.at, action=made.action, cause=made.cause, version=made.version, settled=True)]


def write_memory(store: ObjectStore, ranker: str, memory: Memory, etag: str | None) -> str:
    """Replace the memory that was read; the new entity tag. Raises TryAgainError where another look was faster."""
    try:
        value = memory.model_dump(mode="json", exclude_defaults=True)
        return store.put_json(_key(ranker), value, if_absent=etag is None, if_match=etag)
    except PreconditionFailedError as error:
        raise TryAgainError(f"{ranker}: another look is under way", "two at once would act twice") from error


def settle_act(store: ObjectStore, ranker: str, act: Act, *, happened: bool) -> None:
    """Remember what became of an action, whoever looked meanwhile."""
    for _ in range(_TRIES):
        memory, etag = read_memory(store, ranker)
        memory.settle(act, happened=happened)
        try:
            write_memory(store, ranker, memory, etag)
            return
        except (TryAgainError, ConfigurationError) as error:
            logger(ranker=ranker).info("once more", problem=error.headline)
    logger(ranker=ranker).warning(
        "an action is not settled; the next look may try it again", action=act.action.value
    )
