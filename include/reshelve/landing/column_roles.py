"""Which raw column is which event column: guessed by its name, in the languages of `column_names`, and by what it holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from reshelve.landing.column_names import COLUMN_NAMES, EVENT_WORDS, NONE_OF_OURS
from reshelve.raw.column_kinds import Column

_KINDS = {
    "event_time": {"time", "date"}, "position": {"integer"}, "quantity": {"integer", "decimal"}, "price": {"integer", "decimal"},
    "grade": {"integer", "decimal"}, "event_type": {"text"}, "item_title": {"text"},
}  # fmt: skip
_MOST_TYPES = 40
_NEARLY = 0.8
_LEAST_IDS = 10  # that two columns share: fewer may be small numbers that happen to be ids as well


def words(name: str) -> str:
    """`Artikel-Größe`, `artikelGroesse` → `artikel groesse`: small ASCII words with single spaces."""
    spelled = re.sub(r"(?<=[a-z0-9äöüß])(?=[A-ZÄÖÜ])", " ", name).lower()
    for umlaut, plain in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss"), ("ł", "l"), ("ø", "o")):
        spelled = spelled.replace(umlaut, plain)
    ascii_only = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[a-z]+|[0-9]+", ascii_only))


def roles(columns: Sequence[Column]) -> dict[str, Column]:
    """Event column → raw column, of those that are recognised; each raw column is used once."""
    likely = []
    for place, one in enumerate(columns):
        for role, names in COLUMN_NAMES.items():
            score = _alike(words(one.name), names)
            if score and one.known and _possible(role, one):
                likely.append((-score, place, role, one))
    found: dict[str, Column] = {}
    for _, _, role, one in sorted(likely, key=lambda each: each[:3]):
        if role not in found and one not in found.values():
            found[role] = one
    return found


def same_ids(events: Sequence[Column], products: Sequence[Column]) -> tuple[Column, Column] | None:
    """The column of the events and that of the product list that hold the same ids, whatever they are called."""
    found = [
        (share, one.distinct, -place, one, other)
        for place, one in enumerate(events)
        for other in products
        if other.distinct > _NEARLY * other.known and (share := listed(one, other)) > _NEARLY
        if one.distinct >= min(_LEAST_IDS, other.distinct)
    ]
    return max(found, key=lambda each: each[:3])[3:] if found else None


def listed(one: Column, other: Column) -> float:
    """Which share of one column's values the other has."""
    return len(set(one.values) & set(other.values)) / max(1, len(one.values))


def may_be_types(one: Column) -> bool:
    """Whether its values may be kinds of events."""
    return one.kind.name == "text" and 0 < one.distinct <= _MOST_TYPES


def may_be_ids(one: Column) -> bool:
    """Whether its values may be ids: single words or whole numbers, which come again."""
    return one.kind.name in ("text", "integer") and not one.is_prose and 1 < one.distinct < one.known


def _possible(role: str, one: Column) -> bool:
    if role == "event_type" and not may_be_types(one):
        return False
    return one.kind.name in _KINDS.get(role, {one.kind.name})


def _alike(name: str, known: Sequence[str]) -> int:
    """0 for nothing in common; more for a name that is one of the known, holds one as words, or begins or ends with one."""
    best = 0
    joined = name.replace(" ", "")
    for place, other in enumerate(known):
        rare = len(known) - place
        if joined == other.replace(" ", ""):
            best = max(best, 3000 + rare)
        elif f" {other} " in f" {name} ":
            best = max(best, 2000 + 10 * len(other) + rare)
        elif len(other) > 3 and (
            joined.startswith(other.replace(" ", "")) or joined.endswith(other.replace(" ", ""))
        ):
            best = max(best, 1000 + 10 * len(other) + rare)
    return best


def event_types(values: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Raw value → event type, of those that are recognised; and the others."""
    found: dict[str, str] = {}
    for value in values:
        said = words(value)
        if any(word in said for word in NONE_OF_OURS):
            continue
        for event_type, known in EVENT_WORDS.items():
            if any(word in said for word in known):
                found[value] = event_type
                break
    return found, [value for value in values if value not in found]


def unused(columns: Sequence[Column], found: Mapping[str, Column]) -> list[Column]:
    """The raw columns that stand for nothing."""
    return [one for one in columns if one not in found.values()]
