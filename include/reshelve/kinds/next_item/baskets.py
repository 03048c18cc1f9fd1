"""Baskets become questions: what was bought so far → what comes next.

Each customer's events are walked in time order, and a question sees only what is behind it. A basket of 300 lines
asks no more questions than one of five: a few places are drawn from each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from random import Random
from typing import NamedTuple

import duckdb

from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.sampling import Greatest, stable_hash
from reshelve.examples.tokens import HISTORY_SEPARATOR
from reshelve.examples.window import stream

# Places drawn from one basket. Measuring takes more: a day has few baskets, and asking is cheap beside training.
QUESTIONS_PER_BASKET = {"train": 4, "validation": 10, "holdout": 10}
_LONGEST = 20_000  # events of one customer: beyond it is a robot, and the rest is not read

# An unknown customer is as old as the basket. A basket that crosses midnight is two, and the second begins with the
# first as its history: no training target can come out of a later partition.
# Only who could ask a wanted question is read, and whole: who has one event asks none, and for training the newest count.
_SQL = """
WITH owned AS (
    SELECT *, coalesce('u' || user_id, 's' || session_id) AS owner FROM events WHERE coalesce(user_id, session_id) IS NOT NULL
),
asking AS (
    SELECT owner FROM owned GROUP BY owner HAVING count(*) > 1
        AND bool_or(CASE part WHEN 'train' THEN event_time >= $since ELSE part IN (SELECT unnest($parts)) END)
)
SELECT owner, day, coalesce(session_id, user_id), part, event_time,
       owned.item_id, coalesce(own_title, title, owned.item_id), weight, segment
FROM owned SEMI JOIN asking USING (owner) LEFT JOIN products ON products.item_id = owned.item_id
ORDER BY owner, event_time, day, line
"""
_NEWEST = """
SELECT min(event_time), count(*)
FROM (SELECT event_time FROM events WHERE part = 'train' ORDER BY event_time DESC LIMIT $most)
"""
# Training events that are looked at first: a guess, which costs a second look where it is too few.
_EVENTS_A_QUESTION = 8


class Line(NamedTuple):
    """One event of a customer."""

    owner: str
    day: date
    basket: str
    part: str
    time: datetime
    item: str
    title: str
    weight: float
    segment: str | None = None


@dataclass(frozen=True)
class BasketQuestion:
    """A place in a basket: the history before it (newest first) and the items from it on, with their weights."""

    id: str
    cluster: str
    part: str
    time: datetime
    history: list[str]
    history_titles: list[str]
    rest: list[str]
    weights: list[float]
    segment: str | None

    @property
    def text(self) -> str:
        """What the model reads."""
        return HISTORY_SEPARATOR.join(self.history_titles)

    def held_out(self) -> HoldoutQuery:
        """The question as the gate asks it: the one relevant item is the next in the basket."""
        return HoldoutQuery(
            query_id=self.id,
            text=self.text,
            relevant=self.rest[:1],
            weight=self.weights[0],
            cluster=self.cluster,
            history_items=self.history,
            segment=self.segment,
        )


@dataclass(frozen=True)
class BasketQuestions:
    """The questions of a window, by part, oldest first."""

    train: list[BasketQuestion]
    validation: list[BasketQuestion]
    holdout: list[BasketQuestion]


def collect_questions(
    connection: duckdb.DuckDBPyConnection,
    *,
    known: Iterable[str],
    history_items: int,
    train: int,
    validation: int,
    holdout: int,
    seed: int,
    repeat: bool = True,
) -> BasketQuestions:
    """At most so many questions of each part: the newest for training, an even sample of the others.

    Without `repeat` what the history holds is asked for by none. A training question needs a `known` item (of the catalogue) in the rest of its basket; a held-out one does not.
    """
    limits = {"train": train, "validation": validation, "holdout": holdout}
    walk = partial(
        _walk,
        connection,
        frozenset(known),
        limits,
        partial(ask, history_items=history_items, seed=seed, repeat=repeat),
    )
    since = _since(connection, train)
    found = walk(since, seed)
    if since > datetime.min and len(found.train) < train:
        found = walk(datetime.min, seed)
    return found


def _since(connection: duckdb.DuckDBPyConnection, questions: int) -> datetime:
    """When the training events begin that probably ask so many questions; `datetime.min` where all of them are needed."""
    if not questions:
        return datetime.max
    most = questions * _EVENTS_A_QUESTION
    ((since, events),) = connection.execute(_NEWEST, {"most": most}).fetchall()
    return since if events == most else datetime.min


def _walk(
    connection: duckdb.DuckDBPyConnection,
    catalogue: frozenset[str],
    limits: dict[str, int],
    questions: Callable[[list[Line]], Iterator[BasketQuestion]],
    since: datetime,
    seed: int,
) -> BasketQuestions:
    """The questions of all who could ask one: for training of those from `since` on, which are all there where they are enough."""
    kept = {part: Greatest[BasketQuestion](limit) for part, limit in limits.items()}
    wanted = {"since": since, "parts": [part for part, limit in limits.items() if limit and part != "train"]}
    lines = (Line(*row) for row in stream(connection, _SQL, wanted))
    for _, owned in groupby(lines, key=attrgetter("owner")):
        for question in questions(list(islice(owned, _LONGEST))):
            if question.part == "train":
                if question.time >= since and not catalogue.isdisjoint(question.rest):
                    kept["train"].add((question.time, question.id), question)
            elif question.part == "holdout" or not catalogue.isdisjoint(question.rest):
                kept[question.part].add((stable_hash(seed, question.id), question.id), question)
    parts = {
        part: sorted(found.items(), key=lambda question: (question.time, question.id))
        for part, found in kept.items()
    }
    return BasketQuestions(**parts)


def ask(lines: list[Line], history_items: int, seed: int, repeat: bool = True) -> Iterator[BasketQuestion]:
    """The questions of one customer, whose `lines` are in time order.

    Without `repeat` the rest of a basket is what its history does not hold; a question without any is none.
    """
    baskets: dict[tuple[date, str], dict[str, int]] = {}
    weights: dict[tuple[date, str, str], float] = {}
    for position, line in enumerate(lines):
        baskets.setdefault((line.day, line.basket), {}).setdefault(line.item, position)
        key = (line.day, line.basket, line.item)
        weights[key] = max(weights.get(key, 0.0), line.weight)  # clicked, then bought: it counts as bought

    chosen: dict[int, tuple[str, list[str]]] = {}
    for (day, basket), positions in baskets.items():
        cluster = f"{stable_hash(lines[0].owner, day, basket):016x}"
        items = list(positions)
        places = [
            place for place, item in enumerate(items) if positions[item] > 0
        ]  # something was bought before
        most = QUESTIONS_PER_BASKET[lines[positions[items[0]]].part]
        drawn = Random(stable_hash(seed, cluster)).sample(places, min(most, len(places)))
        for place in drawn:
            chosen[positions[items[place]]] = (cluster, items[place:])

    recent: dict[str, str] = {}  # item → title, the newest last
    for position, line in enumerate(lines):
        if position in chosen:
            cluster, rest = chosen[position]
            rest = rest if repeat else [item for item in rest if item not in recent]
        if position in chosen and rest:
            yield BasketQuestion(
                id=f"{cluster}-{position}",
                cluster=cluster,
                part=line.part,
                time=line.time,
                history=list(reversed(recent.keys())),
                history_titles=list(reversed(recent.values())),
                rest=rest,
                weights=[weights[line.day, line.basket, item] for item in rest],
                segment=line.segment,
            )
        recent.pop(line.item, None)
        recent[line.item] = line.title
        if len(recent) > history_items:
            del recent[next(iter(recent))]
