"""Catalogues and searches of any size, the same whenever they are drawn.

Titles are real ones while there are any, in an order of their own; beyond, the first half of one and the second half of
another. A smaller catalogue is the beginning of a larger one, and item 0 is the one that is wanted most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from reshelve.examples.misspelling import Misspelling
from reshelve.settings import PROJECT

Array = np.ndarray

SAMPLE = PROJECT / "include" / "sample_data" / "uci_online_retail.parquet"
SOURCES = (
    ("catalogues/mixed_titles.parquet", "title"), ("home_depot_2016/pairs.parquet", "product_title"),
    ("uci_online_retail/invoices.parquet", "Description"), ("bestbuy_xbox_2011/clicks.parquet", "title"),
)  # fmt: skip
DAYS = 60  # of the window that is remembered
_BATCH = 65_536
_DRAWS = 20  # recombined titles that are tried for each that is wanted
_SKEW = 3  # the power of a uniform number that an item's place is: an eighth of the items has half of the searches
_MISSPELT = 0.1  # of the queries
_ELSEWHERE = 0.15  # of the choices are of another item than the one that was meant
_LONGEST_WORD = 20  # a title without blanks is not typed whole


@dataclass(frozen=True)
class Shop:
    """Searches of `DAYS` days, one row each (int32 [N]): the number of its text, the item chosen, how many days ago (1 is
    yesterday), the customer. `questions` come after them: texts, and the item that is meant by each, int32 [Q]."""

    texts: list[str]
    text: Array
    items: Array
    ago: Array
    customers: Array
    questions: list[str]
    meant: Array


def real_titles(data: Path) -> list[str]:
    """Distinct titles below `data`, of whatever is there; where nothing is, those of the sample data."""
    found: dict[str, None] = {}
    for name, column in SOURCES:
        path = data / name
        if path.is_file():
            found |= _distinct(path, column)
    return list(found or _distinct(SAMPLE, "Description"))


def _distinct(path: Path, column: str) -> dict[str, None]:
    texts = pq.read_table(path, columns=[column])[column].unique().to_pylist()
    return dict.fromkeys(" ".join(text.split()) for text in texts if text and text.strip())


def titles(count: int, real: list[str], seed: int) -> list[str]:
    """`count` titles, none twice. Raises ValueError where `real` cannot be recombined into so many."""
    generator = np.random.default_rng(seed)
    found = dict.fromkeys(real[place] for place in generator.permutation(len(real))[:count].tolist())
    for tried, title in enumerate(_recombined(real, generator)):
        if len(found) == count:
            break
        if tried > _DRAWS * count + _BATCH:
            raise ValueError(f"{len(real)} titles cannot be recombined into {count} distinct ones")
        found[title] = None
    return list(found)


def _recombined(real: list[str], generator: np.random.Generator) -> Iterator[str]:
    words = [title.split() for title in real]
    while True:
        for one, other in generator.integers(0, len(real), (_BATCH, 2)).tolist():
            head, tail = words[one], words[other]
            yield " ".join(head[: (len(head) + 1) // 2] + tail[len(tail) // 2 :])


def shop(names: list[str], events: int, questions: int, seed: int) -> Shop:
    """Searches over items called `names`: about an item each, in one to three words of its title, some misspelt, repeated by
    Zipf's law. Of the questions three in five repeat a query, one in five misspells one, one in five is new."""
    generator = np.random.default_rng([seed, len(names)])
    spelling = Misspelling(_MISSPELT, seed)
    meant = _wanted(len(names), max(1, events // 5), generator)
    asked = [spelling.of(_query(names[item], generator)) for item in meant.tolist()]
    drawn = _by_zipf(len(asked), events, generator)
    items = meant[drawn]
    elsewhere = generator.random(events) < _ELSEWHERE
    items[elsewhere] = meant[_by_zipf(len(asked), int(elsewhere.sum()), generator)]
    texts = sorted({asked[query] for query in drawn.tolist()})
    place = {text: number for number, text in enumerate(texts)}
    text = np.array([place.get(query, -1) for query in asked], np.int32)[drawn]
    ago = generator.integers(1, DAYS + 1, events).astype(np.int32)
    customers = generator.integers(0, max(1, events // 3), events).astype(np.int32)
    told, about = _questions(names, asked, meant, questions, generator, seed)
    return Shop(texts, text, items, ago, customers, told, about)


def _questions(
    names: list[str], asked: list[str], meant: Array, count: int, generator: np.random.Generator, seed: int
) -> tuple[list[str], Array]:
    wrong = Misspelling(1.0, seed + 1)
    queries = _by_zipf(len(asked), count, generator)
    told = [asked[query] for query in queries.tolist()]
    about = meant[queries]
    new = generator.integers(0, len(names), count).astype(np.int32)
    for place in range(count):
        if place % 5 == 3:
            told[place] = wrong.of(told[place])
        elif place % 5 == 4:
            told[place], about[place] = _query(names[new[place]], generator), new[place]
    return told, about


def histories(names: list[str], count: int, separator: str, seed: int) -> list[str]:
    """What was bought before, of `count` customers: one to four titles each."""
    generator = np.random.default_rng([seed, 4])
    return [
        separator.join(names[item] for item in _wanted(len(names), 1 + number % 4, generator).tolist())
        for number in range(count)
    ]


def _wanted(items: int, count: int, generator: np.random.Generator) -> Array:
    return (items * generator.random(count) ** _SKEW).astype(np.int32)


def _by_zipf(count: int, draws: int, generator: np.random.Generator) -> Array:
    """Places below `count`, the n-th with a chance as 1 / n."""
    cumulative = np.cumsum(1 / np.arange(1, count + 1))
    return np.searchsorted(cumulative, generator.random(draws) * cumulative[-1])


def _query(title: str, generator: np.random.Generator) -> str:
    words = title.lower().split()
    kept = min(len(words), int(generator.integers(1, 4)))
    chosen = np.sort(generator.choice(len(words), kept, replace=False)).tolist()
    return " ".join(words[place][:_LONGEST_WORD] for place in chosen)
