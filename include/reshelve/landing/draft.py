"""A first mapping file, written from a look at the raw files: every line says what it was guessed from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from reshelve.clickstream.database import EVENT_TYPES, column, text
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.errors import DataError
from reshelve.landing.column_guesses import by_values
from reshelve.landing.column_roles import event_types, roles, unused
from reshelve.landing.draft_catalogue import CatalogueDraft
from reshelve.landing.draft_text import formed, not_used, reading, seen
from reshelve.landing.look import Look
from reshelve.raw.column_kinds import Column

_PRIVATE = ("user_id", "session_id", "query")  # whose values do not belong into a file that is shared
_HARDLY = 0.02  # of the rows of a kind of event: it is not about items
_NEARLY = 0.98  # of the rows of searches: they name an item
_HOW_TO = "docs/how-to/use-your-own-clickstream.md#where-the-draft-found-no-time"


class MappingDraft:
    """The text of a mapping file, and what was not understood."""

    def __init__(self, name: str, events: Look, products: Look | None = None) -> None:
        self._name, self._events = name, events
        self.not_understood: list[str] = []
        self.found = roles(events.columns)
        self._catalogue = CatalogueDraft(products, events, self.found) if products else None
        if self._catalogue and self._catalogue.item:
            self.found["item_id"] = self._catalogue.item
        self._guessed = by_values(events.columns, self.found, listed=products is not None)
        self.found |= self._guessed
        self.not_understood += [
            f"{role}: no name says it; taken from {one.name} by its values ({one.kind.name}): a guess"
            for role, one in self._guessed.items()
        ]
        self._types: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        if kind := self.found.get("event_type"):
            self._types, others = event_types(kind.values)
            self._leave_out(kind, others)
        self._leave_out_searches()
        self._time = self._time_of()

    @property
    def problem(self) -> DataError | None:
        """Why the draft is an outline, to be finished by a person; None where it can be tried."""
        if self._time is None:
            columns = ", ".join(one.name for one in self._events.columns)
            return DataError(
                f"{self._events.files[0]}: no column looks like the time of an event, by its name or its values",
                f"columns: {columns}; how to go on: {_HOW_TO}",
            )
        return self._catalogue.problem if self._catalogue else None

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
        yield from reading(look)
        self.not_understood += [
            note.partition(": ")[2] for note in look.notes if note.startswith("NOT UNDERSTOOD")
        ]
        yield from self._rows()
        if self._is_local:
            yield "# time_zone: Europe/Berlin  # where the times are a shop's: its own, with the second event_time below"
        yield "columns:"
        for name in EVENT_SCHEMA.names:
            yield from self._column(name)
        for one in unused(look.columns, self.found):
            if not self._clock or one.name != self._clock.name:
                yield not_used(one)
        if self._catalogue:
            yield from self._catalogue.lines()
            self.not_understood += self._catalogue.doubts()
        elif "item_title" not in self.found:
            self.not_understood.append("titles: none in the events, and no product list (--catalogue)")
        yield "# keep_days: 400  # older days are deleted every night; default: kept for ever"

    @property
    def _clock(self) -> Column | None:
        """A column with the time of day, beside one with the day."""
        when = self.found.get("event_time")
        clocks = [one for one in self._events.columns if one.kind.name == "clock"]
        return clocks[0] if when and when.kind.name == "date" and clocks else None

    @property
    def _is_local(self) -> bool:
        """Whether the times are by clocks that the files do not name."""
        when = self.found.get("event_time")
        return when is not None and (when.kind.local or self._clock is not None)

    def _time_of(self) -> str | None:
        when = self.found.get("event_time")
        if when is None:
            self.not_understood.append("event_time: no column holds times")
            return None
        if self._is_local:
            self.not_understood.append(
                f"{when.name}: times have no offset: taken as UTC; set time_zone, and take the second event_time, if they are a shop's"
            )
        if self._clock:
            return f"CAST({when.kind.sql} AS DATE) + CAST({self._clock.kind.sql} AS TIME)"
        return when.kind.sql

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
                self._left_out[reason] = f"trim({self._raw(kind)}) IN ({', '.join(map(text, values))})"
                self.not_understood.append(f"{kind.name}: {', '.join(values)}: left out: {reason}")

    def _leave_out_searches(self) -> None:
        """Searches after which nothing was chosen: there is nothing to learn from them, and no fault in them."""
        item, kind = self.found.get("item_id"), self.found.get("event_type")
        if item is None or "query" not in self.found:
            return
        shares = [kind.beside[value].get(item.name, 1.0) for value in self._types] if kind else []
        if min(shares, default=1.0) >= _NEARLY and (kind or item.known >= _NEARLY * item.rows):
            return
        self._left_out["no item"] = f"coalesce(trim(CAST({self._raw(item)} AS VARCHAR)), '') = ''"
        self.not_understood.append(
            f"{item.name}: unknown in {item.rows - item.known:,} of {item.rows:,} rows, as of searches without a choice: left out: no item"
        )

    def _rows(self) -> Iterator[str]:
        named = [one.name for one in self._events.columns if one.name.lower() == "source"]
        chosen = (
            "SELECT *" + (f" RENAME ({column(named[0])} AS source_column)" if named else "") + " FROM raw"
        )
        if named:
            yield f"rows: {json.dumps(chosen, ensure_ascii=False)}"
        if self._left_out:
            yield "leave_out:  # rows that are no events for us: not landed, and counted by reason"
        for reason, condition in self._left_out.items():
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
            said = f"{column(one.name)}: {self._seen(name, one)}"
        if one and EVENT_TYPES[name] != "VARCHAR":
            said += "".join(f"; {note}" for note in one.kind.notes)
            self.not_understood += [
                f"{one.name}: {note.partition(': ')[2]}" for note in one.kind.notes if note.startswith("NOT")
            ]
            if one.kind.misfits:
                said += f"; {one.kind.misfits} values are something else and become unknown"
                self.not_understood.append(f"{one.name}: {one.kind.misfits} of {one.known} values")
        sql = sql.replace(column("source"), column("source_column"))
        if name == "event_time" and self._time is None:
            yield f"  # event_time:  # {said}"
            return
        yield f"  {name}: {json.dumps(sql, ensure_ascii=False)}  # {said}"
        if name == "event_time" and self._is_local:
            shop = f"timezone('UTC', timezone('Europe/Berlin', CAST({sql} AS TIMESTAMP)))"
            yield f"  # event_time: {json.dumps(shop, ensure_ascii=False)}  # in its place, with time_zone above"

    def _seen(self, name: str, one: Column) -> str:
        """What a guess was made of may be a person's, as may visits and queries: no values of it."""
        return formed(one) if name in self._guessed else seen(one, name not in _PRIVATE)

    def _event_id(self, one: Column | None) -> tuple[str, str]:
        return "md5(CAST(source AS VARCHAR))", "the whole raw row"

    def _event_time(self, one: Column | None) -> tuple[str, str]:
        if one is None or self._time is None:
            return "NULL", f"no column holds times: write the expression. {_HOW_TO}"
        told = "; has no offset, so taken as UTC" if self._is_local else ""
        return self._time, f"{column(one.name)}: {seen(one)}{told}"

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
        return column(one.name), f"{column(one.name)}: {self._seen('item_id', one)}"

    def _session_id(self, one: Column | None) -> tuple[str, str]:
        if one is not None:
            return column(one.name), f"{column(one.name)}: {seen(one)}"
        user = self.found.get("user_id")
        if user is None:
            self.not_understood.append("which events belong together: no session and no user")
            return "NULL", "nothing looks like it; rows without one are set aside"
        if self._time is None:
            return column(user.name), "no session, and no time: a user"
        return f"concat({column(user.name)}, '/', CAST({self._time} AS DATE))", "no session: a user's day"


def summary(draft: MappingDraft) -> Mapping[str, Any]:
    """What a person is told of a draft: event column → raw column, and what was not understood."""
    return {
        "columns": {name: one.name for name, one in draft.found.items()},
        "not_understood": draft.not_understood,
    }
