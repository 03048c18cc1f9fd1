"""False alarms on a quiet replay of real data, and how soon planted incidents are found.

    python benchmarks/bench_watch.py [--data ../shared/data] [--seed 20110830]

Every event of the shop is one request at its own time, and the watch looks every ten minutes (hourly while nobody asks), by the ranker file's defaults:
invoice lines of the UCI shop (nine months, or the sample's two; closed Saturdays and holidays) and, where it is, Best Buy's clicks (two
months, with real drift as games are released). What was not recorded is drawn: latencies (log-normal, p95 about 20 ms), errors
(one in a thousand), scores. Nothing was wrong in these shops' weeks as far as anybody recorded, so every alert is counted as
false. Then incidents are planted, one at a time, into copies of busy days. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
from own_store import own_store

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import AgentSeen, Observation
from reshelve.monitoring.watch import judge
from reshelve.monitoring.watch_state import Memory, Stable
from reshelve.protocol.traffic import Counts, TrafficReport
from reshelve.settings import PROJECT
from reshelve.store.objects import ObjectStore, object_store

EVERY = timedelta(minutes=10)
OLD, NEW = 20101101001, 20101115001
HISTORY = timedelta(days=43)

Event = tuple[datetime, str]


@dataclass(frozen=True)
class Incident:
    """What is planted: `change` alters one request as (times as slow, fails, text); `traffic` how many there are."""

    name: str
    expected: str
    slower: float = 1.0
    failing: float = 0.001
    text: Callable[[str], str] = str
    traffic: float = 1.0
    young: bool = True


INCIDENTS = (
    Incident("slow version", "bad version", slower=3.0),
    Incident("failing version", "bad version", failing=0.1),
    Incident("failing service", "bad service", failing=0.1, young=False),
    Incident("shifted inputs", "drift", text=lambda text: f"zz {text[::-1]} {text[::-1]}"),
    Incident("no traffic", "no traffic", traffic=0.0),
    Incident("eight times the traffic", "out of the ordinary", traffic=8.0),
)
QUIET = Incident("quiet", "")


def uci(data: Path) -> list[Event]:
    """Invoice lines: when, and what was put into the basket. Nine months where they are, else the two of the sample."""
    whole = sorted((data / "uci_online_retail").glob("*.parquet"))
    path = whole[0] if whole else PROJECT / "include" / "sample_data" / "uci_online_retail.parquet"
    table = pq.read_table(path, columns=["InvoiceDate", "Description"])
    return events(table["InvoiceDate"].to_pylist(), table["Description"].to_pylist())


def best_buy(data: Path) -> list[Event]:
    """Clicks: when the query was typed, and the query."""
    table = pq.read_table(data / "bestbuy_xbox_2011" / "clicks.parquet", columns=["query_time", "query"])
    return events(table["query_time"].to_pylist(), table["query"].to_pylist())


def events(times: Sequence[datetime], texts: Sequence[str | None]) -> list[Event]:
    """In order of time."""
    found = [
        (at.replace(tzinfo=UTC), text or "") for at, text in zip(times, texts, strict=True) if at is not None
    ]
    return sorted(found)


def ranker() -> Ranker:
    """With every default."""
    return Ranker.model_validate(
        {"name": "replay", "title": "A replay", "kind": "next_item", "data": {"source": "retail"},
         "gates": {"metric": "recall@20"}}
    )  # fmt: skip


class Replay:
    """One shop, one version, looks every ten minutes."""

    def __init__(self, store: ObjectStore, found: list[Event], seed: int) -> None:
        self.store, self.events, self.seed, self.ranker = store, found, seed, ranker()
        self.start = found[0][0].replace(hour=0, minute=0, second=0, microsecond=0)
        self.end = found[-1][0]

    def looks(
        self, begin: datetime, end: datetime, memory: Memory, incident: Incident, at: datetime
    ) -> Iterator[Observation]:
        """From `begin` to `end`; from `at` on the incident happens."""
        dice = random.Random(self.seed)
        counts, place = (
            Counts(),
            next((n for n, (when, _) in enumerate(self.events) if when >= begin), len(self.events)),
        )
        now, before = begin, place
        while now < end:
            now += EVERY
            while place < len(self.events) and self.events[place][0] < now:
                when, text = self.events[place]
                place += 1
                happens = when >= at
                times = incident.traffic if happens else 1.0
                for _ in range(int(times)):
                    slower = incident.slower if happens else 1.0
                    if dice.random() < (incident.failing if happens else 0.001):
                        counts.add(None, "TooSlowError")
                    else:
                        counts.add(8 * dice.lognormvariate(0, 0.55) * slower)
                        counts.describe(incident.text(text) if happens else text, dice.betavariate(2, 5))
            idle = before == place and now.minute
            before = place
            if idle and at > now:  # nobody asked: looked at once an hour, to be done in minutes
                continue
            yield judge(self.store, self.seen(now, counts, memory, young=incident.young or now < at), memory)

    def seen(self, now: datetime, counts: Counts, memory: Memory, *, young: bool) -> Collected:
        """What a look at that time collects. A nightly shop's version is always young."""
        since = now - timedelta(hours=6 if young else 100)
        pointer = Pointer(ranker="replay", sequence=1, stable=NEW, previous=OLD, moved_at=since)
        memory.stable = Stable(version=NEW, since=since, came_by="promote", sequence=1)
        report = TrafficReport(client="replay", at=now, counts={1: {NEW: counts.plus(Counts())}})
        agent = AgentSeen(agent="a", live=True, age_seconds=3, stable=NEW)
        return Collected(ranker=self.ranker, now=now, pointer=pointer, reports=(report,), agents=(agent,))


def quiet(replay: Replay) -> tuple[dict[str, object], list[tuple[datetime, Memory]]]:
    """Alerts of the whole time, and memories of mornings from which incidents may begin."""
    memory, alerts, looks = Memory(), Counter[str](), 0
    mornings: list[tuple[datetime, Memory]] = []
    examples: list[str] = []
    for observation in replay.looks(
        replay.start, replay.end, memory, QUIET, datetime.max.replace(tzinfo=UTC)
    ):
        looks += 1
        decision = observation.decision
        assert decision is not None
        if decision.alert:
            alerts[f"{decision.condition.value}: {observation.findings[0].check}"] += 1
            examples.append(f"{observation.at:%Y-%m-%d %H:%M} {decision.reason}")
        if (
            observation.at.hour == 11
            and observation.at.minute == 0
            and observation.at - replay.start > HISTORY
        ):
            mornings.append((observation.at, memory.model_copy(deep=True)))
    weeks = (replay.end - replay.start) / timedelta(weeks=1)
    for example in examples[:12]:
        print(f"    {example}")
    return {
        "looks": looks,
        "weeks": round(weeks, 1),
        "false_alarms": dict(alerts),
        "false_alarms_a_week": round(sum(alerts.values()) / weeks, 3),
    }, mornings


def planted(
    replay: Replay, mornings: list[tuple[datetime, Memory]], tries: int
) -> dict[str, dict[str, object]]:
    """Each incident on days drawn among those with customers: found on how many, after how many looks and requests."""
    dice = random.Random(replay.seed)
    times = [when for when, _ in replay.events]

    def between(begin: datetime, end: datetime) -> int:
        return bisect_left(times, end) - bisect_left(times, begin)

    busy = [
        (at, memory)
        for at, memory in mornings
        if between(at, at + timedelta(hours=3)) >= 40 and between(at - EVERY, at)
    ]
    found: dict[str, dict[str, object]] = {}
    for incident in INCIDENTS:
        delays, asked = [], []
        for at, memory in dice.sample(busy, min(tries, len(busy))):
            requests = 0
            copy = memory.model_copy(deep=True)
            copy.versions[OLD] = copy.versions[NEW].model_copy(deep=True)
            copy.clients = {}
            copy.standing, copy.told = {}, {}
            for number, look in enumerate(replay.looks(at, at + timedelta(hours=24), copy, incident, at), 1):
                requests += sum(seen.requests for seen in look.versions)
                if any(one.condition.value == incident.expected for one in look.findings):
                    delays.append(number)
                    asked.append(requests)
                    break
        middle = sorted(delays)[len(delays) // 2] if delays else None
        found[incident.name] = {
            "tried": min(tries, len(busy)),
            "found_in_24h": len(delays),
            "median_looks": middle,
            "median_requests": sorted(asked)[len(asked) // 2] if asked else None,
        }
    return found


def main() -> None:
    """Everything, on an object store of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RESHELVE_DATA", PROJECT.parent / "shared" / "data"))
    )
    parser.add_argument("--seed", type=int, default=20110830)
    parser.add_argument("--shops", nargs="*", default=["uci", "best_buy"], choices=["uci", "best_buy"])
    parser.add_argument("--tries", type=int, default=12, help="days that each incident is planted on")
    args = parser.parse_args()
    result: dict[str, object] = {}
    with own_store(None, "bench"):
        shops = {"uci": uci(args.data)} if "uci" in args.shops else {}
        if "best_buy" in args.shops and (args.data / "bestbuy_xbox_2011").is_dir():
            shops["best_buy"] = best_buy(args.data)
        for name, found in shops.items():
            replay = Replay(object_store(), found, args.seed)
            print(f"{name}: {len(found)} requests")
            calm, mornings = quiet(replay)
            incidents = planted(replay, mornings, args.tries) if mornings else {}
            for key, value in {**calm, **incidents}.items():
                print(f"  {key:<24} {value}")
            result[name] = {**calm, "incidents": incidents}
    print(json.dumps({"bench": "watch", "seed": args.seed, **result}))


if __name__ == "__main__":
    main()
