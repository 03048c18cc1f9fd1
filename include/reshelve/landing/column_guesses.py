"""Which raw column is which event column where no name tells it: guessed by its values, and always said to be a guess."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from reshelve.landing.column_roles import event_types, may_be_ids, may_be_types, unused
from reshelve.raw.column_kinds import Column

_LEAST = 20  # rows: of fewer, values say too little about ids and amounts
_ITEMS = 0.9  # of the rows, at most: what has more different values is no item, which comes again
_FEW = 1000  # pieces that somebody takes at once
_MOSTLY = 0.5  # of the values

Found = Mapping[str, Column]


def by_values(columns: Sequence[Column], found: Found, *, listed: bool = False) -> dict[str, Column]:
    """Event column → raw column, of those that are not `found` by their names and whose values tell them.

    `listed`: a product list tells items and their titles, so they are not looked for here.
    """
    guessed: dict[str, Column] = {}
    for role, guess in _GUESSES:
        known = {**found, **guessed}
        if role in known or (listed and role in ("item_title", "item_id")):
            continue
        if one := guess([each for each in unused(columns, known) if each.known], known):
            guessed[role] = one
    return guessed


def _time(columns: Sequence[Column], found: Found) -> Column | None:
    """The times of day before the days alone; then the column that says most."""
    times = [one for one in columns if one.kind.name in ("time", "date")]
    return max(times, key=lambda one: (one.kind.name == "time", one.known, one.distinct), default=None)


def _type(columns: Sequence[Column], found: Found) -> Column | None:
    """A few values, most of which are kinds of events in a language that is known."""
    return _only(
        one
        for one in columns
        if may_be_types(one) and len(event_types(one.values)[0]) > max(1, _MOSTLY * len(one.values))
    )


def _title(columns: Sequence[Column], found: Found) -> Column | None:
    """Several words, and one column of ids of which each has one of them."""
    item = found.get("item_id")
    texts = [
        one
        for one in columns
        if one.is_prose
        and one.rows >= _LEAST
        and (item.name in one.names if item else any(_named(each, one) for each in columns))
    ]
    return max(texts, key=lambda one: one.distinct, default=None)


def _item(columns: Sequence[Column], found: Found) -> Column | None:
    """The ids that the title names: those of which there are about as many."""
    title = found.get("item_title")
    if title is None:
        return None
    ids = [one for one in columns if _named(one, title)]
    return min(ids, key=lambda one: abs(one.distinct - title.distinct), default=None)


def _session(columns: Sequence[Column], found: Found) -> Column | None:
    """The ids of which there are most: a customer has several visits, a visit several rows."""
    ids = [
        one
        for one in columns
        if may_be_ids(one)
        and one.rows >= _LEAST
        and one.distinct > _few(one)
        and one.known > _MOSTLY * one.rows
    ]
    return max(ids, key=lambda one: one.distinct, default=None)


def _price(columns: Sequence[Column], found: Found) -> Column | None:
    return _only(one for one in columns if one.kind.name == "decimal" and one.rows >= _LEAST)


def _quantity(columns: Sequence[Column], found: Found) -> Column | None:
    """Small whole numbers beside a price."""
    if "price" not in found:
        return None
    return _only(
        one
        for one in columns
        if one.kind.name == "integer"
        and one.rows >= _LEAST
        and one.distinct <= _few(one)
        and _are_pieces(one)
    )


def _named(ids: Column, title: Column) -> bool:
    return may_be_ids(ids) and ids.name in title.names and ids.distinct <= _ITEMS * ids.known


def _few(one: Column) -> float:
    """So many different values are few for its rows: no ids."""
    return max(3.0, one.rows**0.5)


def _are_pieces(one: Column) -> bool:
    """Numbers as people write counts: no leading zeros, and not large."""
    plain = [value.lstrip("+-") for value in one.values]
    return all(value == str(int(value)) and int(value) < _FEW for value in plain)


def _only(columns: Iterable[Column]) -> Column | None:
    """The one, where there is no other."""
    found = list(columns)
    return found[0] if len(found) == 1 else None


_GUESSES: tuple[tuple[str, Callable[[Sequence[Column], Found], Column | None]], ...] = (
    ("event_time", _time),
    ("event_type", _type),
    ("item_title", _title),
    ("item_id", _item),
    ("price", _price),
    ("quantity", _quantity),
    ("session_id", _session),
)
