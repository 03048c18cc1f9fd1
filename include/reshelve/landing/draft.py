"""A first mapping file, written from a look at the raw files: every line says what it was guessed from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from reshelve.clickstream.database import EVENT_TYPES, column, text
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.errors import DataError
from reshelve.landing.column_roles import event_types, listed, roles, same_ids, unused
from reshelve.landing.look import Look
from reshelve.raw.column_kinds import Column

_PRIVATE = ("user_id", "session_id", "query")  # whose values do not belong into a file that is shared
_SHOWN = 3
_HARDLY = 0.02  # of the rows of a kind of event: it is not about items
_MOSTLY = 0.5  # of the ids


class Draft:
    """The text of a mapping file, and what was not understood."""

    def __init__(self, name: str, events: Look, products: Look | None = None) -> None:
        self._name, self._events, self._products = name, events, products
        self.not_understood: list[str] = []
        self.found = roles(events.columns)
        self._listed = roles(products.columns) if products else {}
        self._by_ids()
        self._types: dict[str, str] = {}
        self._left_out: dict[str, list[str]] = {}
        if kind := self.found.get("event_type"):
            self._types, others = event_types(kind.values)
            self._leave_out(kind, others)
        self._time = self._time_of()

    def text(self) -> str:
        """The file."""
        body = list(self._body())
        head = [
            f"# Drafted by `reshelve new source` from {self._events.rows:,} rows of {len(self._events.files)} files."
            " What follows a # was guessed: look at each line.",
            f"# Then: reshelve land --source {self._name} --dry-run   maps and judges the first day, and lands nothing.",
        ]
        if self.not_understood:
            head += ["#", "# NOT UNDERSTOOD", *(f"#   {each}" for each in self.not_understood)]
        return "\n".join([*head, *body]) + "\n"

    def _body(self) -> Iterator[str]:
        look = self._events
        yield f"name: {self._name}"
        yield f"title: {self._name.replace('_', ' ')}"
        yield f"files: {json.dumps(look.pattern, ensure_ascii=False)}"
        if look.daily_pattern:
            yield f"# files: {json.dumps(look.daily_pattern, ensure_ascii=False)}  # instead: each night lands its own day by itself"
        yield from _reading(look, "")
        self.not_understood += [
            note.partition(": ")[2] for note in look.notes if note.startswith("NOT UNDERSTOOD")
        ]
        yield from self._rows()
        yield f"event_date: {json.dumps(f'CAST({self._time} AS DATE)')}  # the day in the files' own time"
        yield "columns:"
        for name in EVENT_SCHEMA.names:
            yield from self._column(name)
        for one in unused(look.columns, self.found):
            if not self._clock or one.name != self._clock.name:
                yield f"# not used: {column(one.name)}: {_seen(one)}"
        yield from self._catalogue()
        yield "# keep_days: 400  # older days are deleted every night; default: kept for ever"

    @property
    def _clock(self) -> Column | None:
        """A column with the time of day, beside one with the day."""
        when = self.found.get("event_time")
        clocks = [one for one in self._events.columns if one.kind.name == "clock"]
        return clocks[0] if when and when.kind.name == "date" and clocks else None

    def _time_of(self) -> str:
        when = self.found.get("event_time")
        if when is None:
            listed = ", ".join(one.name for one in self._events.columns)
            raise DataError(
                f"{self._events.files[0]}: no column looks like the time of an event", f"columns: {listed}"
            )
        if self._clock:
            return f"CAST({when.kind.sql} AS DATE) + CAST({self._clock.kind.sql} AS TIME)"
        return when.kind.sql

    def _by_ids(self) -> None:
        """Where names do not tell which columns hold the ids of items, values may: both files have them."""
        if self._products is None:
            return
        item, product = self.found.get("item_id"), self._listed.get("item_id")
        if item is None or product is None or listed(item, product) < _MOSTLY:
            columns = [item] if item else unused(self._events.columns, self.found)
            if same := same_ids(columns, self._products.columns):
                self._listed = {role: one for role, one in self._listed.items() if one != same[1]}
                self.found["item_id"], self._listed["item_id"] = same
        texts = [one for one in unused(self._products.columns, self._listed) if one.kind.name == "text"]
        if "item_title" not in self._listed and texts:
            self._listed["item_title"] = title = max(texts, key=lambda one: one.distinct)
            self.not_understood.append(f"titles of the product list: taken from {title.name}")

    def _leave_out(self, kind: Column, others: list[str]) -> None:
        """Kinds of events that are none of ours, and those whose rows name no item."""
        item = self.found.get("item_id")
        hardly = [
            value
            for value in self._types
            if item and kind.beside.get(value, {}).get(item.name, 1.0) < _HARDLY
        ]
        self._types = {value: made for value, made in self._types.items() if value not in hardly}
        for reason, values in (
            ("no impression, click, cart, purchase or return", others),
            ("names no item", hardly),
        ):
            if values:
                self._left_out[reason] = values

    def _rows(self) -> Iterator[str]:
        named = [one.name for one in self._events.columns if one.name.lower() == "source"]
        chosen = (
            "SELECT *" + (f" RENAME ({column(named[0])} AS source_column)" if named else "") + " FROM raw"
        )
        if named:
            yield f"rows: {json.dumps(chosen, ensure_ascii=False)}"
        if self._left_out:
            kind = self.found["event_type"]
            yield f"leave_out:  # kinds of {column(kind.name)} that are no events for us: not landed, and counted"
        for reason, values in self._left_out.items():
            self.not_understood.append(f"{kind.name}: {', '.join(values)}: left out: {reason}")
            condition = f"trim({self._raw(kind)}) IN ({', '.join(map(text, values))})"
            yield f"  {reason}: {json.dumps(condition, ensure_ascii=False)}"

    @staticmethod
    def _raw(one: Column) -> str:
        """The column in an expression, where the row itself is called `source`."""
        return column("source_column" if one.name.lower() == "source" else one.name)

    def _column(self, name: str) -> Iterator[str]:
        made = getattr(self, f"_{name}", None)
        one = self.found.get(name)
        if made:
            sql, said = made(one)
        elif one is None:
            sql, said = "NULL", "nothing looks like it"
        else:
            is_text = EVENT_TYPES[name] == "VARCHAR"  # an id that looks like a number stays as it is written
            sql = column(one.name) if is_text else one.kind.sql
            said = f"{column(one.name)}: {_seen(one, name not in _PRIVATE)}"
        if one and EVENT_TYPES[name] != "VARCHAR":
            said += "".join(f"; {note}" for note in one.kind.notes)
            self.not_understood += [
                f"{one.name}: {note.partition(': ')[2]}" for note in one.kind.notes if note.startswith("NOT")
            ]
            if one.kind.misfits:
                said += f"; {one.kind.misfits} values are something else and become unknown"
                self.not_understood.append(f"{one.name}: {one.kind.misfits} of {one.known} values")
        sql = sql.replace(column("source"), column("source_column"))
        yield f"  {name}: {json.dumps(sql, ensure_ascii=False)}  # {said}"

    def _event_id(self, one: Column | None) -> tuple[str, str]:
        return "md5(CAST(source AS VARCHAR))", "the whole raw row"

    def _event_time(self, one: Column | None) -> tuple[str, str]:
        assert one
        return self._time, f"{column(one.name)}: {_seen(one)}; taken as UTC where it says no offset"

    def _event_type(self, one: Column | None) -> tuple[str, str]:
        if one is not None:
            whens = " ".join(f"WHEN {text(raw)} THEN {text(kind)}" for raw, kind in self._types.items())
            raw = f"trim({column(one.name)})"
            return (f"CASE {raw} {whens} ELSE {raw} END" if whens else raw), f"{column(one.name)}"
        if quantity := self.found.get("quantity"):
            self.not_understood.append(
                "what an event is: taken as a purchase, a return where the quantity is below 0"
            )
            less = f"CAST({quantity.kind.sql} AS DOUBLE) < 0"
            return (
                f"CASE WHEN {less} THEN 'return' ELSE 'purchase' END",
                "no column says it: there is a quantity",
            )
        self.not_understood.append("what an event is: taken as a click")
        return "'click'", "no column says it"

    def _item_id(self, one: Column | None) -> tuple[str, str]:
        if one is None:
            others = ", ".join(each.name for each in unused(self._events.columns, self.found)) or "none"
            self.not_understood.append(
                f"item_id: no column looks like it, and rows without one are set aside; columns not used: {others}"
            )
            return "NULL", "nothing looks like it"
        return column(one.name), f"{column(one.name)}: {_seen(one, True)}"

    def _session_id(self, one: Column | None) -> tuple[str, str]:
        if one is not None:
            return column(one.name), f"{column(one.name)}: {_seen(one)}"
        user = self.found.get("user_id")
        if user is None:
            self.not_understood.append("which events belong together: no session and no user")
            return "NULL", "nothing looks like it; rows without one are set aside"
        return f"concat({column(user.name)}, '/', CAST({self._time} AS DATE))", "no session: a user's day"

    def _catalogue(self) -> Iterator[str]:
        if self._products is None:
            if "item_title" not in self.found:
                self.not_understood.append("titles: none in the events, and no product list (--catalogue)")
            return
        found = self._listed
        missing = [name for name in ("item_id", "item_title") if name not in found]
        if missing:
            columns = ", ".join(one.name for one in self._products.columns)
            raise DataError(
                f"{self._products.files[0]}: no column looks like {' or '.join(missing)}",
                f"columns: {columns}",
            )
        item = self.found.get("item_id")
        if item and (share := listed(item, found["item_id"])) < _MOSTLY:
            self.not_understood.append(
                f"{item.name}: {share:.0%} of its values are in the product list ({found['item_id'].name})"
            )
        yield "catalogue:"
        yield f"  files: {json.dumps(self._products.pattern, ensure_ascii=False)}"
        yield from _reading(self._products, "  ")
        for key, role in (("item_id", "item_id"), ("title", "item_title")):
            one = found[role]
            yield f"  {key}: {json.dumps(column(one.name), ensure_ascii=False)}  # {_seen(one, True)}"


def _reading(look: Look, indent: str) -> Iterator[str]:
    yield f"{indent}format: {look.file_format}"
    for note in look.notes:
        yield f"{indent}# {note}"
    if look.options:
        yield f"{indent}options: {json.dumps(look.options, ensure_ascii=False)}"


def _seen(one: Column, examples: bool = False) -> str:
    """`integer, 812 different in 5,000 rows, 12 unknown, such as 00412 | 0413`."""
    said = f"{one.kind.name}, {one.distinct:,} different in {one.rows:,} rows"
    if one.known < one.rows:
        said += f", {one.rows - one.known:,} unknown"
    shown = [value for value in one.values[:_SHOWN] if value.isprintable()]
    return said + (f", such as {' | '.join(shown)}" if examples and shown else "")


def summary(draft: Draft) -> Mapping[str, Any]:
    """What a person is told of a draft: event column → raw column, and what was not understood."""
    return {
        "columns": {name: one.name for name, one in draft.found.items()},
        "not_understood": draft.not_understood,
    }
