"""What a search ranker may remember under differential privacy: counts of searches, released once with noise.

Who is protected is one customer: all rows of a user id, or of a session where the user is not known. Whatever they did, at most
`per_customer` pairs of query and item are counted of them, each once and with a weight of at most 1; rows with neither id are
left out. Everything else that the tables hold (neighbours, n-grams, popularity at every age) is worked out from what was
released, so one release is all that a night costs a customer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import tensorflow as tf

from reshelve.clickstream.remember import EVERYTHING
from reshelve.config.remember import Remember
from reshelve.features.tables import AskedTexts, Corpus, Searches, SearchTables
from reshelve.features.text import TextKeys
from reshelve.statistics.noisy_counts import UNIT, NoisyCounts

# An item is counted by age too: days from the first number on. Queries have no ages of their own, but their items'.
AGES = (0, 4, 16)
_STANDS_FOR = (1, 9, 36)  # the age in days that all of a group are given
_BATCH = 4096

Array = np.ndarray
NO_QUERY, NO_AGE = "", -1
Name = tuple[str, str, int]  # of a count: query, item, NO_AGE; or NO_QUERY, item, place in AGES


@dataclass(frozen=True)
class NoisyChoice:
    """One label event with a query: who (None: nobody knows), the query's words, the item's id, the day, and the label's weight as a
    part of the heaviest label's of the ranker file."""

    customer: str | None
    query: str
    item: str
    day: date
    weight: float


def unit_of(user: str | None, session: str | None) -> str | None:
    """Who is protected. A user's id is no session's, though both read alike."""
    if user:
        return f"user {user}"
    return f"session {session}" if session else None


def counted(choices: Sequence[NoisyChoice], as_of: date, per_customer: int) -> dict[Name, int]:
    """What is counted, in UNITs of a customer: each pair, and each item by age.

    A customer gives at most UNIT to a count, to `per_customer` pairs and to as many items by age. Which pairs follows from their
    own rows alone: the newest. The catalogue is not asked: which items it has follows from others' rows.
    """
    of_customer: dict[str, dict[tuple[str, str], tuple[date, int]]] = defaultdict(dict)
    for choice in choices:
        if choice.customer is not None and choice.query != NO_QUERY and choice.day < as_of:
            pairs, pair = of_customer[choice.customer], (choice.query, choice.item)
            weight = max(1, round(UNIT * min(1.0, choice.weight)))
            day, most = pairs.get(pair, (choice.day, 0))
            pairs[pair] = max(day, choice.day), max(most, weight)  # clicked, then bought: it counts as bought
    counts: dict[Name, int] = defaultdict(int)
    for pairs in of_customer.values():
        kept = sorted(pairs.items(), key=lambda found: (-found[1][0].toordinal(), found[0]))[:per_customer]
        by_age: dict[Name, int] = {}
        for (query, item), (day, weight) in kept:
            counts[query, item, NO_AGE] += weight
            name = NO_QUERY, item, _age(day, as_of)
            by_age[name] = max(by_age.get(name, 0), weight)
        for name, weight in by_age.items():
            counts[name] += weight
    return dict(counts)


def searches_of(
    released: Mapping[Name, float], index: Mapping[str, int], as_of: date, heaviest: float
) -> Searches:
    """What was released as searches of `index`'s items: a pair's count is spread over the ages that its item's has.

    What is known of an item beyond its pairs has no query. Weights are the label's again.
    """
    ages: dict[str, Array] = defaultdict(lambda: np.zeros(len(AGES)))
    for query, item, age in sorted(released):  # in an order that says nothing of who came first
        if query == NO_QUERY:
            ages[item][age] = released[query, item, age]
    everything = sum(ages.values(), np.zeros(len(AGES)))
    everything = everything if everything.any() else np.ones(len(AGES))
    rows: list[tuple[str, str, Array]] = []
    left = {item: counts.copy() for item, counts in ages.items()}
    for query, item, age in sorted(released):
        if query != NO_QUERY:
            found = ages.get(item, everything)
            counts = released[query, item, age] * found / found.sum()
            left[item] = np.maximum(left.get(item, 0.0) - counts, 0.0)
            rows.append((query, item, counts))
    rows += [(NO_QUERY, item, counts) for item, counts in left.items()]
    cells = [
        (index[item], as_of.toordinal() - 1 - stands_for, count * heaviest, query)
        for query, item, counts in rows
        if item in index
        for stands_for, count in zip(_STANDS_FOR, counts, strict=True)
        if count > 0
    ]
    items, days, weights, queries = zip(*cells, strict=True) if cells else ((), (), (), ())
    texts = sorted(set(queries))
    place = {query: number for number, query in enumerate(texts)}
    text, by_day = np.array([place[query] for query in queries], np.int32), np.array(days, np.int32)
    # Whatever was released may be remembered: nobody's in particular, from its own days on.
    asked = AskedTexts(text, np.zeros(len(cells), np.int32), by_day)
    return Searches(texts, text, np.array(items, np.int32), by_day, np.array(weights, np.float64), asked)


class NoisyCorpus:
    """Like `Corpus`: `tables` of any morning. Each call is a release of its own, with noise of its own.

    Only the tables of one may leave the night. Raises ConfigurationError where OpenDP is not installed.
    """

    def __init__(
        self,
        choices: Sequence[NoisyChoice],
        index: Mapping[str, int],
        titles: list[str],
        rule: Remember,
        heaviest: float,
    ) -> None:
        assert rule.privacy.epsilon is not None
        self._choices, self._titles = choices, titles
        self._index, self._heaviest = index, heaviest
        self._most = rule.privacy.per_customer
        # To a pair and to an item by age: twice as many counts as pairs.
        self._noise = NoisyCounts(
            rule.privacy.epsilon, rule.privacy.delta, 2 * self._most, float(rule.customers)
        )

    def tables(self, as_of: date) -> SearchTables:
        """What may be known at the first instant of `as_of`."""
        released = self._noise.release(counted(self._choices, as_of, self._most))
        found = searches_of(released, self._index, as_of, self._heaviest)
        return Corpus(found, self._titles, EVERYTHING).tables(as_of)

    @property
    def spent(self) -> dict[str, Any]:
        """What one release costs a customer, and how: for the version's lineage and the report."""
        epsilon, delta = self._noise.spent
        return {
            "epsilon": epsilon, "delta": delta, "per_customer": self._most, "noise": self._noise.scale,
            "threshold": self._noise.threshold,
        }  # fmt: skip


def plain(queries: Sequence[str]) -> dict[str, str]:
    """Each distinct query's words, by the query: all that is counted of how it was typed."""
    distinct, keys = sorted(set(queries)), TextKeys()
    found: dict[str, str] = {}
    for start in range(0, len(distinct), _BATCH):
        batch = distinct[start : start + _BATCH]
        words = keys.plain(tf.constant(batch)).numpy()
        found |= {query: text.decode() for query, text in zip(batch, words, strict=True)}
    return found


def _age(day: date, as_of: date) -> int:
    """The place in AGES."""
    age = (as_of - day).days - 1
    return max(place for place, first in enumerate(AGES) if age >= first)
