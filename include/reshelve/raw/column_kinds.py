"""What the text of a raw column is: whole numbers, decimals (with a point or a comma), times in one of many forms, or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb

from reshelve.clickstream.database import column, text

_COMMAS = (
    "NOT UNDERSTOOD: 1,299 may be one and a bit, or more than a thousand: three digits stand behind every comma and point."
    " Where commas are between thousands, take them out: replace(…, ',', '')"
)
_CURRENCY = r"(\s|[€$£¥₹]|[A-Z]{3}|kr\.?|zł|Kč|Fr\.?)*"
_LONGEST = 100  # characters of a value that may be an id, a kind of event or an example
_NEARLY = 0.98  # of the values: what is left becomes unknown, and is said
_FORMATS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y, %H:%M:%S", "%d.%m.%Y, %H:%M", "%d.%m.%Y", "%d.%m.%y %H:%M:%S", "%d.%m.%y %H:%M",
    "%d.%m.%y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%m/%d/%Y", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%m-%Y",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y%m%d%H%M%S", "%Y%m%dT%H%M%S", "%Y%m%d", "%d %b %Y %H:%M:%S",
    "%d %b %Y %H:%M", "%d %b %Y",
)  # fmt: skip
_CLOCKS = ("%H:%M:%S", "%H:%M")
_OFFSET = "[0-9]{2}:[0-9]{2}.*([zZ]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?)"  # at the end of a time
_SEVERAL_WORDS = 1.5  # on average: a title or a query, and no id
_ONE_EACH = 1.05  # values of another column to a value: nearly one, for titles are corrected
_EPOCHS = {  # the least and the most that is a time of today, and microseconds of each
    "seconds": (1_200_000_000, 4_000_000_000, 1_000_000),
    "milliseconds": (1_200_000_000_000, 4_000_000_000_000, 1_000),
    "microseconds": (1_200_000_000_000_000, 4_000_000_000_000_000, 1),
}


@dataclass(frozen=True)
class ColumnType:
    """What a column holds. `sql` makes the typed value of it; `misfits` of the sample do not fit."""

    name: str  # integer, decimal, time, date, clock or text
    sql: str
    misfits: int = 0
    notes: tuple[str, ...] = ()
    local: bool = False  # a time of day by clocks that the values do not name


@dataclass(frozen=True)
class Column:
    """A raw column as the sample shows it."""

    name: str
    rows: int
    known: int
    distinct: int
    values: tuple[str, ...] = field(default=())  # the commonest first, without very long ones
    kind: ColumnType = field(default=ColumnType("text", ""))
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)  # see `known_beside`
    words: float = 0.0  # of a value, on average
    names: frozenset[str] = frozenset()  # see `named_by`

    @property
    def is_prose(self) -> bool:
        """Texts of several words, as titles and queries are."""
        return self.kind.name == "text" and self.words >= _SEVERAL_WORDS


def look_at(db: duckdb.DuckDBPyConnection, table: str, name: str) -> Column:
    """One column of a table of raw rows. Columns that are no text keep the type of the file."""
    value = f"nullif(trim(CAST({column(name)} AS VARCHAR)), '')"
    ((rows, known, distinct, own_type, words),) = db.execute(
        f"SELECT count(*), count({value}), count(DISTINCT {value}), any_value(typeof({column(name)})),"
        f" avg(len({value}) - len(replace({value}, ' ', '')) + 1) FILTER (length({value}) <= {_LONGEST}) FROM {table}"
    ).fetchall()
    values = db.execute(
        f"SELECT {value} AS one FROM {table} WHERE length(one) <= {_LONGEST} GROUP BY 1 ORDER BY count(*) DESC, 1"
    ).fetchall()
    kind = _typed(own_type or "", column(name)) or _read(db, table, name, known)
    if own_type != "VARCHAR":  # what is nested is no text, though it is written with blanks
        words = 0.0
    return Column(name, rows, known, distinct, tuple(str(one) for (one,) in values), kind, words=words or 0.0)


def known_beside(
    db: duckdb.DuckDBPyConnection, table: str, name: str, others: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Value of a column → which share of its rows knows each of the other columns."""
    shares = ", ".join(
        f"avg(CAST(coalesce(trim(CAST({column(other)} AS VARCHAR)), '') <> '' AS DOUBLE))" for other in others
    )
    found = db.execute(
        f"SELECT trim(CAST({column(name)} AS VARCHAR)) AS one, {shares} FROM {table} WHERE one <> '' GROUP BY 1"
    ).fetchall()
    return {str(value): dict(zip(others, known, strict=True)) for value, *known in found}


def named_by(db: duckdb.DuckDBPyConnection, table: str, name: str, others: Sequence[str]) -> frozenset[str]:
    """The other columns of which each value has one value of this column, as an item has one title."""
    text_of = {each: f"nullif(trim(CAST({column(each)} AS VARCHAR)), '')" for each in (name, *others)}
    counts = ", ".join(
        f"count(DISTINCT {text_of[other]}) FILTER ({text_of[name]} IS NOT NULL),"
        f" count(DISTINCT ({text_of[other]}, {text_of[name]}))"
        f" FILTER ({text_of[name]} IS NOT NULL AND {text_of[other]} IS NOT NULL)"
        for other in others
    )
    found = db.execute(f"SELECT {counts} FROM {table}").fetchall()[0] if others else ()
    return frozenset(
        other
        for other, values, pairs in zip(others, found[::2], found[1::2], strict=True)
        if 0 < pairs <= _ONE_EACH * values
    )


def _typed(own_type: str, quoted: str) -> ColumnType | None:
    """The kind of a column whose file says its type."""
    if own_type in ("", "VARCHAR", '"NULL"'):
        return None
    if own_type == "DATE":
        return ColumnType("date", quoted)
    if own_type.startswith("TIMESTAMP"):
        return ColumnType("time", quoted, local="TIME ZONE" not in own_type)
    if own_type.endswith(("INT", "INTEGER")):
        return ColumnType("integer", quoted)
    if own_type in ("DOUBLE", "FLOAT") or own_type.startswith("DECIMAL"):
        return ColumnType("decimal", quoted)
    return ColumnType("text", f"CAST({quoted} AS VARCHAR)")


def _read(db: duckdb.DuckDBPyConnection, table: str, name: str, known: int) -> ColumnType:
    """The kind of a column of text: the first that nearly all values have."""
    read = _Reader(db, table, column(name), known)
    ways = (read.moment, read.integer, read.decimal, read.iso, read.formatted) if known else ()
    return next((kind for way in ways if (kind := way())), ColumnType("text", column(name)))


@dataclass(frozen=True)
class _Reader:
    """Tries what the values of one column may be."""

    db: duckdb.DuckDBPyConnection
    table: str
    quoted: str
    known: int

    def fits(self, expression: str) -> int:
        """How many values the expression makes something of."""
        ((count,),) = self.db.execute(
            f"SELECT count({expression}) FROM {self.table} WHERE trim({self.quoted}) <> ''"
        ).fetchall()
        return int(count)

    def _found(self, kind: str, sql: str, tried: str, *notes: str) -> ColumnType | None:
        """`sql` where every value fits; `tried`, which makes nothing of the others, where nearly all do."""
        count = self.fits(tried)
        if count < max(1, _NEARLY * self.known):
            return None
        return ColumnType(kind, sql if count == self.known else tried, self.known - count, notes)

    def _when(self, shape: str, value: str, what: str = "") -> str:
        return (
            f"CASE WHEN regexp_full_match({what or f'trim({self.quoted})'}, {text(shape)}) THEN {value} END"
        )

    def moment(self) -> ColumnType | None:
        """Whole numbers that are days (20260105), or time since 1970."""
        digits = f"TRY_CAST({self.quoted} AS BIGINT)"
        made = f"strptime({self.quoted}, '%Y%m%d')"
        days = f"CASE WHEN {digits} BETWEEN 19900101 AND 20991231 THEN try_{made} END"
        if self.fits(days) == self.known:
            return ColumnType("date", made, notes=("times as %Y%m%d",))
        for unit, (least, most, factor) in _EPOCHS.items():
            if self.fits(f"CASE WHEN {digits} BETWEEN {least} AND {most} THEN 1 END") == self.known:
                sql = f"make_timestamp(CAST({self.quoted} AS BIGINT){f' * {factor}' if factor > 1 else ''})"
                return ColumnType("time", sql, notes=(f"read as {unit} since 1970, UTC",))
        return None

    def integer(self) -> ColumnType | None:
        """Whole numbers."""
        return self._found(
            "integer", self.quoted, self._when("[+-]?[0-9]+", f"TRY_CAST({self.quoted} AS BIGINT)")
        )

    def decimal(self) -> ColumnType | None:
        """Decimals, plain; or with a currency, or separators between thousands; or with a comma."""
        plain = self._when(r"[+-]?[0-9]*\.?[0-9]+", f"TRY_CAST({self.quoted} AS DOUBLE)")
        if kind := self._found("decimal", self.quoted, plain):
            return kind
        amount = rf"{_CURRENCY}[+-]?[0-9][0-9., ]*{_CURRENCY}"
        bare = f"regexp_replace({self.quoted}, '[^0-9,.+-]', '', 'g')"
        comma = f"replace(replace({bare}, '.', ''), ',', '.')"
        for number, shape, said in (
            (comma, r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?", "a comma before the decimals"),
            (
                f"replace({bare}, ',', '')",
                r"[+-]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?",
                "commas between thousands",
            ),
        ):
            tried = self._when(amount, self._when(shape, f"TRY_CAST({number} AS DOUBLE)", bare))
            if kind := self._found("decimal", f"CAST({number} AS DOUBLE)", tried, said):
                told = self.fits(self._when(r".*(\..*,[0-9]+|,([0-9]{1,2}|[0-9]{4,}))([^0-9].*)?", "1"))
                doubt = () if number != comma or told else (_COMMAS,)
                return replace(kind, notes=(*kind.notes, *doubt))
        return None

    def iso(self) -> ColumnType | None:
        """2026-01-05, with a time of day or without."""
        day = self._when("[0-9]{4}-[0-9]{2}-[0-9]{2}", f"TRY_CAST({self.quoted} AS DATE)")
        moment = self._when(
            "[0-9]{4}-[0-9]{2}-[0-9]{2}.*", f"CAST(TRY_CAST({self.quoted} AS TIMESTAMPTZ) AS TIMESTAMP)"
        )
        if kind := self._found("date", self.quoted, day) or self._found("time", self.quoted, moment):
            return replace(kind, local=kind.name == "time" and self._without_offset())
        return None

    def _without_offset(self) -> bool:
        return (
            self.fits(f"CASE WHEN regexp_full_match(trim({self.quoted}), {text('.*' + _OFFSET)}) THEN 1 END")
            < self.known
        )

    def formatted(self) -> ColumnType | None:
        """Days and times in one of the forms that people write; times of the day alone."""
        for form in (*_CLOCKS, *_FORMATS):
            made = f"strptime(trim({self.quoted}), {text(form)})"
            name = "clock" if form in _CLOCKS else "time" if "%H" in form or "%I" in form else "date"
            if kind := self._found(name, made, f"try_{made}", f"times as {form}"):
                return replace(kind, notes=(*kind.notes, *self._doubt(form)), local=name != "date")
        return None

    def _doubt(self, form: str) -> tuple[str, ...]:
        american = form.replace("%d/%m", "%m/%d")
        if american == form or self.fits(f"try_strptime(trim({self.quoted}), {text(american)})") < self.known:
            return ()
        return ("NOT UNDERSTOOD: day/month or month/day? Every value fits both; read as day/month",)
