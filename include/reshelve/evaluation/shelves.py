"""Example shelves: what the challenger and the champion answered to the same few held-out questions, for people.

`runs/<run>/gate/shelves.json`. They judge nothing: the gate's figures are over all questions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from reshelve.lineage.run import stage_prefix
from reshelve.logs import logger
from reshelve.store.objects import ObjectStore

SHELVES = "shelves.json"
MOST_SHELVES = 5
PLACES = 5


class Shelf(BaseModel):
    """One question and the titles of its first places, best first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asked: str
    challenger: tuple[str, ...]
    champion: tuple[str, ...] = Field((), description="Empty where no champion was compared.")
    chosen: tuple[str, ...] = Field((), description="What the customer chose, or what was judged relevant.")


_SHELVES = TypeAdapter(tuple[Shelf, ...])


def write_shelves(directory: Path, shelves: Sequence[Shelf]) -> None:
    """Beside the gate's report, which is uploaded with it."""
    (directory / SHELVES).write_bytes(_SHELVES.dump_json(tuple(shelves), indent=1))


def read_shelves(store: ObjectStore, run: str) -> tuple[Shelf, ...]:
    """Those of a run (ranker/partition/digest); empty where there are none, or they are damaged."""
    found = store.get(f"{stage_prefix(store, run, 'gate')}/{SHELVES}")
    try:
        return () if found is None else _SHELVES.validate_json(found.body)
    except ValidationError as error:
        logger().warning("example shelves are damaged", run=run, problem=str(error.errors()[0]["msg"]))
        return ()


def example_shelves(
    texts: Sequence[str],
    chosen: Sequence[Sequence[str]],
    challenger: Sequence[Sequence[str]],
    champion: Sequence[Sequence[str]] | None,
    titles: Mapping[str, str],
    may_be_shown: Collection[str] | None = None,
) -> list[Shelf]:
    """A few questions, spread evenly over those whose first places differ; where too few do, over the others too.

    All are of the Q questions, item ids best first. `titles`: item → title; an item without one goes by its id.
    `may_be_shown`: texts that say nothing of one person; None: all of them.
    """
    first = {text: place for place, text in reversed(list(enumerate(texts)))}
    places = sorted(place for text, place in first.items() if may_be_shown is None or text in may_be_shown)

    def differs(place: int) -> bool:
        return champion is None or list(challenger[place][:PLACES]) != list(champion[place][:PLACES])

    taken = _spread([place for place in places if differs(place)], MOST_SHELVES)
    taken += _spread([place for place in places if not differs(place)], MOST_SHELVES - len(taken))

    def named(items: Sequence[str]) -> tuple[str, ...]:
        return tuple(titles.get(item, item) for item in items[:PLACES])

    return [
        Shelf(
            asked=texts[place],
            challenger=named(challenger[place]),
            champion=() if champion is None else named(champion[place]),
            chosen=named(chosen[place]),
        )
        for place in taken
    ]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Up to `count` of them, from the first to the last at even distances."""
    if len(places) <= count or count < 1:
        return list(places[: max(0, count)])
    step = (len(places) - 1) / max(1, count - 1)
    return [places[round(number * step)] for number in range(count)]
