"""How often the judgement of clicks takes a good version back, and how soon it finds one that is clicked less.

    python benchmarks/bench_clicks.py [--replays 100] [--planted 40] [--seed 20110830]

Releases of a drawn shop are replayed: traffic and click-through have a daily cycle and weekends, sessions differ in length and in how
much they click, one in 300 is a program that asks hundreds of times. The rest is the real thing: sessions are placed by
`routing.wants_canary` under real entries of a deployment log, requests and clicks lie in Parquet files of the request log's and the
partition's own columns, they are joined and judged by the code that judges releases, and looked at after every hour of the
release. A/A: both versions are the same, `max_drop` is 0, and every rollback is false; beside it what pooling the requests of
a day by version would have done. Planted: one version is clicked less. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.client.request_log import table
from reshelve.client.routing import meant_version
from reshelve.config.ranker import Ranker
from reshelve.config.rollout import CanaryClicks
from reshelve.deployments.deployment_log import Entry, Pointer
from reshelve.deployments.release_table import Plan, ReleaseState
from reshelve.rollout.canary_analysis import StepOutcome, judge_clicks
from reshelve.rollout.clicked import ClickedDay, join_files
from reshelve.rollout.concurrent import windows
from reshelve.statistics.rates import newcombe, wilson
from reshelve.statistics.stratified import Stratum

OLD, NEW = 20110828001, 20110829001
FIRST = datetime(2011, 8, 29, tzinfo=UTC)  # a Monday
ITEMS, SCORES = [["i1", "i2"]], [[0.3, 0.1]]
Z95 = 1.96


@dataclass(frozen=True)
class Shop:
    """What is drawn. `night`: the night's share of the day's traffic; clicks: click-through at night and in the evening."""

    sessions_a_day: int = 4000
    night: float = 0.2
    clicks: tuple[float, float] = (0.08, 0.2)
    weekend: tuple[float, float] = (1.6, 0.8)  # traffic and click-through beside a weekday's
    programs: float = 1 / 300


@dataclass(frozen=True)
class Step:
    """From so many hours after the release's first midnight on, such a share; None: the version is stable."""

    hour: float
    share: float | None


@dataclass(frozen=True)
class Scenario:
    """A way of releasing, on days from `first` on, in a shop."""

    name: str
    steps: tuple[Step, ...]
    days: int
    shop: Shop = field(default_factory=Shop)
    first: datetime = FIRST


GROWS = (Step(4, 0.05), Step(10, 0.25), Step(18, 0.5), Step(34, None))
SCENARIOS = (
    Scenario("share grows from 04:00", GROWS, 2),
    Scenario("over a weekend", (Step(15, 0.1), Step(40, 0.5)), 3, first=FIRST + timedelta(days=4)),
    Scenario("half for two days, few clicks", (Step(9, 0.5),), 2, Shop(clicks=(0.01, 0.03))),
    Scenario("no canary, released at 04:00", (Step(4, None),), 1, Shop(clicks=(0.2, 0.12))),
)


def deployment_log(scenario: Scenario) -> list[Entry]:
    """As a release writes it: OLD serves, then NEW is offered, gets its shares and may become stable."""
    shares = tuple(step.share for step in scenario.steps if step.share is not None)
    begun = {"ranker": "replay", "stable": OLD, "previous": None, "plan": Plan(shares=shares), "canary": NEW}
    moves: list[tuple[str, dict[str, object], datetime]] = [
        ("promote", {"stable": OLD}, scenario.first - timedelta(days=1)),
        (
            "offer",
            {**begun, "state": ReleaseState.LOADING},
            scenario.first + timedelta(hours=scenario.steps[0].hour - 0.1),
        ),
    ]
    for number, step in enumerate(scenario.steps):
        at = scenario.first + timedelta(hours=step.hour)
        if step.share is None:
            moves.append(("promote", {"stable": NEW, "previous": OLD}, at))
        else:
            canary = {**begun, "state": ReleaseState.CANARY, "share": step.share, "step": number + 1}
            moves.append(("probed" if number == 0 else "passed", canary, at))
    return [
        Entry(
            sequence=n,
            action=action,
            pointer=Pointer(**{"ranker": "replay", **values, "sequence": n, "moved_at": at}),
        )  # type: ignore[arg-type]
        for n, (action, values, at) in enumerate(moves, 1)
    ]


@dataclass(frozen=True)
class Visits:
    """One day's sessions: names, when each began (seconds of the day), requests of each, and each one's inclination to click."""

    names: list[str]
    began: np.ndarray
    length: np.ndarray
    inclined: np.ndarray

    @staticmethod
    def drawn(shop: Shop, dice: np.random.Generator, day: datetime) -> Visits:
        """Traffic lowest at 04:00 and highest at 16:00; who clicks much and who asks much differ from session to session."""
        weekend = day.weekday() >= 5
        count = dice.poisson(shop.sessions_a_day * (shop.weekend[0] if weekend else 1))
        hours = dice.uniform(0, 24, 6 * count)
        kept = hours[dice.random(hours.size) < shop.night + (1 - shop.night) * busy(hours)][:count]
        low, high = shop.clicks
        rate = (low + (high - low) * busy(kept)) * (shop.weekend[1] if weekend else 1)
        length = 1 + dice.negative_binomial(0.7, 0.7 / (0.7 + 2), kept.size)
        inclined = dice.beta(3 * rate, 3 * (1 - rate))
        program = dice.random(kept.size) < shop.programs
        length[program] = dice.integers(200, 2000, program.sum())
        inclined[program] = dice.choice([0.0, 0.9], program.sum(), p=[0.8, 0.2])
        salts = dice.integers(1 << 40, size=kept.size)
        names = [f"{day:%d} {number} {salt:x}" for number, salt in enumerate(salts.tolist())]
        return Visits(names, kept * 3600, length, inclined)


def busy(hours: np.ndarray) -> np.ndarray:
    """0 at 04:00, 1 at 16:00."""
    return (1 - np.cos((hours - 4) * math.pi / 12)) / 2


Plant = Callable[[Visits], np.ndarray]


def alike(visits: Visits) -> np.ndarray:
    """Nothing is planted."""
    return np.ones(len(visits.names))


def everywhere(visits: Visits) -> np.ndarray:
    """Every click is lost with a chance of 10 %."""
    return np.full(len(visits.names), 0.9)


def of_heavy(visits: Visits) -> np.ndarray:
    """Sessions of more than four requests lose one click of five."""
    return np.where(visits.length > 4, 0.8, 1.0)


def much(visits: Visits) -> np.ndarray:
    """Every click is lost with a chance of 30 %."""
    return np.full(len(visits.names), 0.7)


@dataclass(frozen=True)
class Replay:
    """One release of one shop."""

    scenario: Scenario
    ranker: Ranker
    seed: int
    plant: Plant = alike

    def days(self) -> Iterator[ClickedDay]:
        """Each day as the code joins it."""
        log, dice = deployment_log(self.scenario), np.random.default_rng(self.seed)
        found = windows(log)
        before: list[Path] = []
        with tempfile.TemporaryDirectory(prefix="bench-clicks-") as scratch:
            for number in range(self.scenario.days):
                midnight, directory = self.scenario.first + timedelta(days=number), Path(scratch)
                asked, good = directory / f"{number}.parquet", directory / f"{number}-good.parquet"
                self._write(log, midnight, dice, asked, good)
                yield join_files(
                    self.ranker, midnight.date(), [asked], good, found, before, directory / "spill"
                )
                before = [asked]

    def _write(
        self, log: Sequence[Entry], midnight: datetime, dice: np.random.Generator, asked: Path, good: Path
    ) -> None:
        """A day's request log and clicks."""
        visits = Visits.drawn(self.scenario.shop, dice, midnight)
        session = np.repeat(np.arange(len(visits.names)), visits.length)
        place = np.arange(session.size) - np.repeat(np.cumsum(visits.length) - visits.length, visits.length)
        at = visits.began[session] + place * np.where(visits.length > 100, 2, 45)[session]
        kept = at < 86_400
        session, at = session[kept], at[kept]
        # A caller follows a move within a second.
        moves = [(entry.pointer.moved_at or midnight) - midnight for entry in log]
        known = (
            np.searchsorted(
                [move.total_seconds() for move in moves], at - dice.uniform(0, 1.2, at.size), "right"
            )
            - 1
        )
        versions = {
            (one, number): meant_version(log[number].pointer, visits.names[one])
            for one, number in sorted(set(zip(session.tolist(), known.tolist(), strict=True)))
        }
        version = np.array([versions[pair] for pair in zip(session.tolist(), known.tolist(), strict=True)])
        factor = np.where(version == NEW, self.plant(visits)[session], 1.0)
        clicked = dice.random(session.size) < visits.inclined[session] * factor
        times = np.datetime64(midnight.replace(tzinfo=None), "us") + (at * 1e6).astype("timedelta64[us]")
        names = np.array(visits.names, dtype=object)[session]
        pq.write_table(request_rows(times, names, version, known + 1), asked)
        pq.write_table(click_rows(times[clicked] + np.timedelta64(4, "s"), names[clicked]), good)


def request_rows(
    times: np.ndarray, sessions: np.ndarray, versions: np.ndarray, moves: np.ndarray
) -> pa.Table:
    """Rows of the request log, in its own columns; sessions are pseudonyms already."""
    count = len(times)
    given = {"at": times, "session": sessions, "version": versions, "meant": versions, "move": moves,
             "items": ITEMS * count, "scores": SCORES * count}  # fmt: skip
    schema = table([], (), date.min).schema
    return pa.table(
        [pa.array(given.get(name, [None] * count), schema.field(name).type) for name in schema.names], schema
    )


def click_rows(times: np.ndarray, sessions: np.ndarray) -> pa.Table:
    """Clicks on the first item, in the clickstream's own columns."""
    count = len(times)
    given = {
        "event_time": times,
        "event_type": ["click"] * count,
        "session_id": sessions,
        "item_id": ["i1"] * count,
    }
    return pa.table(
        [pa.array(given.get(field.name, [None] * count), field.type) for field in EVENT_SCHEMA], EVENT_SCHEMA
    )


def ranker() -> Ranker:
    """With every default."""
    return Ranker.model_validate(
        {"name": "replay", "title": "A replay", "kind": "next_item", "data": {"source": "retail"},
         "gates": {"metric": "recall@20"}}
    )  # fmt: skip


def looked_at(strata: Sequence[Stratum], rules: CanaryClicks) -> int | None:
    """Sessions until the first look, one an hour, that rolls back; None: none does."""
    for look in range(1, len(strata) + 1):
        if judge_clicks(strata[:look], rules).verdict is StepOutcome.ROLL_BACK:
            return sum(one.mine.sessions + one.theirs.sessions for one in strata[:look])
    return None


def pooled(day: ClickedDay) -> bool:
    """Whether pooling the requests of the day by version finds the newer one worse by any amount, with 99 %."""
    counts = {one.version: one for one in day.joined}
    if set(counts) != {OLD, NEW}:
        return False
    old, new = counts[OLD], counts[NEW]
    return newcombe(old.clicks, old.clickable, new.clicks, new.clickable).low > 0


def aa(replays: int, seed: int, only: str) -> dict[str, object]:
    """False rollbacks of each way of releasing whose name has `only` in it, and of all of them."""
    rules = CanaryClicks(max_drop=0.0, min_sessions=200)
    result: dict[str, object] = {}
    all_false = all_pooled = count = 0
    for number, scenario in enumerate(SCENARIOS):
        if only not in scenario.name:
            continue
        false = pooling = 0
        for replay in range(replays):
            days = list(Replay(scenario, ranker(), seed + 10_000 * number + replay).days())
            strata = [one for day in days for one in day.strata]
            false += looked_at(strata, rules) is not None
            pooling += any(pooled(day) for day in days)
        all_false, all_pooled, count = all_false + false, all_pooled + pooling, count + replays
        result[scenario.name] = {"replays": replays, "false_rollbacks": false, "pooled": pooling}
        print(f"  A/A  {scenario.name:<32} {false} of {replays}; by pooling {pooling}", flush=True)
    share = [round(one, 4) for one in wilson(all_false, count, Z95).ends]
    result["all"] = {"replays": count, "false_rollbacks": all_false, "share_95": share, "pooled": all_pooled}
    return result


PLANTED: dict[str, tuple[Plant, tuple[float, ...]]] = {
    "-10 %": (everywhere, (0.0, 0.02)),
    "-30 %": (much, (0.02,)),
    "-20 % in sessions of more than 4 requests": (of_heavy, (0.0,)),
}


def planted(replays: int, seed: int) -> dict[str, object]:
    """Sessions (of both versions, half each) until each planted drop is found, by the `max_drop` that is asked for."""
    scenario = Scenario("half until it is found", (Step(4, 0.5),), 12, Shop(sessions_a_day=12_000))
    result: dict[str, object] = {}
    for name, (plant, mosts) in PLANTED.items():
        rules = {most: CanaryClicks(max_drop=most, min_sessions=200) for most in mosts}
        needed: dict[float, list[float]] = {most: [] for most in mosts}
        for replay in range(replays):
            strata: list[Stratum] = []
            for day in Replay(scenario, ranker(), seed + replay, plant).days():
                strata += day.strata
                if judge_clicks(strata, rules[mosts[-1]]).verdict is StepOutcome.ROLL_BACK:
                    break
            for most in mosts:
                needed[most].append(looked_at(strata, rules[most]) or math.inf)
        for most, counts in needed.items():
            ordered = sorted(counts)
            middle, late = ordered[(replays - 1) // 2], ordered[math.ceil(0.9 * replays) - 1]
            found = {
                "replays": replays,
                "found": sum(map(math.isfinite, counts)),
                "median_sessions": int(middle) if math.isfinite(middle) else None,
                "p90_sessions": int(late) if math.isfinite(late) else None,
            }
            result[f"{name}, max_drop {most:g}"] = found
            print(f"  planted  {name}, max_drop {most:g}: {found}", flush=True)
    return result


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replays", type=int, default=100, help="A/A releases of each kind; 0: none")
    parser.add_argument("--planted", type=int, default=40, help="releases with each planted drop; 0: none")
    parser.add_argument("--seed", type=int, default=20110830)
    parser.add_argument("--only", default="", help="only A/A releases whose name has this in it")
    args = parser.parse_args()
    found: dict[str, object] = {}
    if args.replays:
        found["aa"] = aa(args.replays, args.seed, args.only)
    if args.planted:
        found["planted"] = planted(args.planted, args.seed)
    print(json.dumps({"bench": "clicks", "seed": args.seed, **found}))


if __name__ == "__main__":
    main()
