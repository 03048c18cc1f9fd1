"""The typed form of a clickstream source (`include/clickstreams/<source>.yaml`): raw files mapped onto events by SQL.

A shop's own files reach Reshelve by such a file, never by code: one DuckDB expression per event column,
over the raw columns of one row. The row itself is `source`, so `md5(CAST(source AS VARCHAR))` names it.
What csv and json files hold is text there, letter for letter, until an expression or `options.types` makes it more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from reshelve.clickstream.dated_files import Span, by_day, names_days, path_of, problem
from reshelve.clickstream.days import TimeZone
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.config.named_files import names
from reshelve.config.yaml_models import Form, line_of, load_form, misfit
from reshelve.errors import ConfigurationError, NotDeliveredError
from reshelve.names import RankerName
from reshelve.raw.formats import FormatName, raw_format
from reshelve.raw.reader_options import ReaderOptions
from reshelve.settings import PROJECT, settings

_DATA = "${RESHELVE_DATA}"
_SYSTEM = tuple(map(Path, ("/proc", "/sys", "/dev", "/etc", "/run/secrets", "/var/run/secrets")))
REQUIRED = ("event_id", "event_time", "event_type", "item_id")  # without these an event says nothing

Expression = Annotated[
    str, Field(min_length=1, description="A DuckDB expression over the columns of one raw row.")
]


@dataclass(frozen=True)
class SourceFiles:
    """The raw files of one landing, listed once: what arrives while it runs is read by the next.

    `days` says of which day each file of `events` is, where a `{date}` tells.
    """

    events: list[Path]
    products: list[Path]
    days: dict[Path, date]


class ProductFiles(Form):
    """A source's product list."""

    files: str = Field(min_length=1, description="As `files` of the source.")
    format: FormatName = Field(
        "parquet",
        description="Format of the files: parquet, csv, tsv, json (one object a line), or one that was added. All but parquet may be gzipped.",
    )
    options: ReaderOptions = Field(ReaderOptions(), description="As `options` of the source.")
    rows: str | None = Field(None, description="As `rows` of the source: a query whose rows are the items.")
    item_id: Expression
    title: Expression


class ClickstreamSource(Form):
    """How one source's raw files become event partitions."""

    name: RankerName = Field(description="The source's name: the file's name without .yaml.")
    title: str = Field("", description="A title for people.")
    licence: str = Field("", description="The licence of the data.")
    attribution: str = Field("", description="The attribution to show with the data.")
    files: str = Field(
        min_length=1,
        description="A path or glob, relative to the project; ${RESHELVE_DATA}/… for data kept outside it. With "
        "`{date}` (`{date:%Y%m%d}`) for a file's day, the DAG `clickstream` lands each day before "
        "validating it.",
    )
    neighbour_days: int = Field(
        0,
        ge=0,
        le=7,
        description="With `{date}`: rows of a day may be in the files of this many days before and after it; "
        "those files are read too, and late rows of earlier days are landed.",
    )
    wait_minutes: int = Field(
        0,
        ge=0,
        le=300,
        description="With `{date}`: minutes the DAG waits for a day's files before landing fails.",
    )
    format: FormatName = Field(
        "parquet",
        description="Format of the files: parquet, csv, tsv, json (one object a line), or one that was added. All but parquet may be gzipped.",
    )
    options: ReaderOptions = Field(ReaderOptions(), description="Reader options.")
    rows: str | None = Field(
        None,
        description="A DuckDB query over the table `raw` that returns one row per event, if a raw row holds "
        "several: `SELECT *, unnest(items) AS item FROM raw`.",
    )
    leave_out: dict[str, Expression] = Field(
        {},
        description="Rows that are not events: a reason in words and a DuckDB condition, such as `no consent: "
        "visitor IS NULL`. These rows are not landed; the result counts them by the first reason "
        "that applies.",
    )
    time_zone: TimeZone = Field(
        "UTC",
        description="The time zone in which this source's days begin, such as America/Los_Angeles. Times are "
        "stored in UTC.",
    )
    event_date: Expression | None = Field(
        None,
        description="A DuckDB expression for the day whose partition a row belongs to. Default: the day of "
        "`event_time` in `time_zone`.",
    )
    first_position: Literal[0, 1] = Field(
        1, description="The value of `position` for the first item of a list. If it is 0, one is added."
    )
    columns: dict[str, Expression] = Field(
        description="One DuckDB expression per event column; a column that is not named is NULL. "
        "`event_id`, `event_time`, `event_type` and `item_id` are required."
    )
    catalogue: ProductFiles | None = Field(None, description="The product list, if there is one.")
    keep_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="How many days of this source are kept, landed rows and verdicts; older days are deleted "
        "every night and not landed again. Default: forever.",
    )
    rules: RankerName = Field(
        "clickstream", description="The file in include/expectations/ with the rules for its partitions."
    )

    @model_validator(mode="after")
    def _every_column_once(self) -> ClickstreamSource:
        missing = [name for name in REQUIRED if name not in self.columns]
        unknown = [name for name in self.columns if name not in EVENT_SCHEMA.names]
        if missing:
            raise misfit(f"no expression for {', '.join(missing)}, which every source needs", "columns")
        if unknown:
            said = f"{', '.join(unknown)} is not an event column: {', '.join(EVENT_SCHEMA.names)}"
            raise misfit(said, "columns", unknown[0])
        return self

    @model_validator(mode="after")
    def _days_of_files(self) -> ClickstreamSource:
        if wrong := problem(self.files):
            raise misfit(wrong, "files")
        if self.catalogue and (wrong := problem(self.catalogue.files)):
            raise misfit(wrong, "catalogue", "files")
        for key in ("neighbour_days", "wait_minutes"):
            if getattr(self, key) and not self.lands_by_day:
                raise misfit("applies only if `files` has a {date}", key)
        return self

    def expression(self, column: str) -> str:
        """The SQL of an event column: NULL where the file does not name it, as files written before there was one do not."""
        return self.columns.get(column, "NULL")

    @property
    def lands_by_day(self) -> bool:
        """Whether the files of one day can be told, and so landed on their own."""
        return names_days(self.files)


def source_path(name: str) -> Path:
    """The mapping file of source `name`. Raises ConfigurationError listing the known sources."""
    directory = settings().clickstreams_dir
    path = directory / f"{name}.yaml"
    known = names(directory)
    if name not in known:
        raise ConfigurationError(
            f"{name!r} is not a clickstream source", f"known in {directory}: {', '.join(known) or 'none'}"
        )
    return path


def load_source(name: str) -> ClickstreamSource:
    """The mapping of source `name`. Raises ConfigurationError naming file, line, key and expectation.

    The rule file that it names must be there; what is in that is seen where it is read.
    """
    path = source_path(name)
    source = load_form(ClickstreamSource, path)
    if source.name != name:
        raise ConfigurationError(
            f"{path}:{line_of(path, 'name')}: name: expected {name!r}, as the file is called"
        )
    known = names(settings().expectations_dir)
    if source.rules not in known:
        raise ConfigurationError(
            f"{path}:{line_of(path, 'rules')}: rules: no rule file {source.rules!r}",
            f"known in {settings().expectations_dir}: {', '.join(known) or 'none'}",
        )
    _check_options(path, "options", source.format, source.options)
    if source.catalogue:
        _check_options(path, "catalogue.options", source.catalogue.format, source.catalogue.options)
    return source


def _check_options(path: Path, key: str, file_format: str, options: ReaderOptions) -> None:
    for name in raw_format(file_format).foreign(options):
        line = line_of(path, *key.split("."), name)
        raise ConfigurationError(
            f"{path}:{line}: {key}.{name}: no option of {file_format}",
            raw_format(file_format).expected_options,
        )


def raw_files(name: str, key: str, pattern: str) -> list[Path]:
    """The files that `pattern` (of `key` in source `name`) means, sorted; with a `{date}` those of all days.

    Raises ConfigurationError where there are none.
    """
    full = _full(pattern)
    if names_days(pattern):
        found = [path for paths in by_day(full).values() for path in paths]
    else:
        found = sorted(Path(full.anchor).glob(str(full.relative_to(full.anchor))))
    if not found:
        path = source_path(name)
        raise ConfigurationError(
            f"{path}:{line_of(path, *key.split('.'))}: {key}: no file at {full}",
            f"{pattern}: {_hint(pattern)}",
        )
    return _outside_closed(name, key, found)


def event_files(mapping: ClickstreamSource, span: Span) -> list[Path]:
    """The files that may hold rows of `span`: those of its days and their neighbours, or all where no `{date}` tells them apart.

    Raises NotDeliveredError where no day of the span has any, ConfigurationError where no `{date}` tells and there are none.
    """
    if not mapping.lands_by_day:
        return raw_files(mapping.name, "files", mapping.files)
    return list(_dated_files(mapping, span))


def list_files(mapping: ClickstreamSource, span: Span | None = None) -> SourceFiles:
    """The files that may hold rows of `span` (default: of all days), and those of the product list.

    Raises as `event_files` and `product_list`.
    """
    days = _dated_files(mapping, span or Span()) if mapping.lands_by_day else {}
    events = list(days) if mapping.lands_by_day else raw_files(mapping.name, "files", mapping.files)
    return SourceFiles(events, product_list(mapping) if mapping.catalogue else [], days)


def _dated_files(mapping: ClickstreamSource, span: Span) -> dict[Path, date]:
    """The files that may hold rows of `span`, in order, each with the day that it is of."""
    listed = span.files(by_day(_full(mapping.files)))
    if not any(map(span.holds, listed)):
        path, day = source_path(mapping.name), span.last or span.first or date.max
        raise NotDeliveredError(
            f"{mapping.name}: no file for {day} has arrived",
            f"{path}:{line_of(path, 'files')}: files: expected {path_of(str(_full(mapping.files)), day)}",
        )
    found = {path: day for day, paths in listed.items() for path in paths}
    _outside_closed(mapping.name, "files", list(found))
    return found


def delivered(mapping: ClickstreamSource, span: Span) -> set[date]:
    """The days of `span` that have files of their own. `mapping.files` has a `{date}`."""
    return {day for day in by_day(_full(mapping.files)) if span.holds(day)}


def product_list(mapping: ClickstreamSource) -> list[Path]:
    """The files of the catalogue; of those with a `{date}` the newest day's, also when an old day is landed: a source has one list."""
    assert mapping.catalogue
    pattern = mapping.catalogue.files
    listed = by_day(_full(pattern)) if names_days(pattern) else {}
    if not listed:
        return raw_files(mapping.name, "catalogue.files", pattern)
    return _outside_closed(mapping.name, "catalogue.files", listed[max(listed)])


def _outside_closed(name: str, key: str, found: list[Path]) -> list[Path]:
    """`found`, unless one of them lies, also by way of a link, where no raw files are: our keys, or what the system tells of processes."""
    closed = [*_SYSTEM, settings().home.resolve()]
    for path in found:
        real = path.resolve()
        if inside := next((folder for folder in closed if real.is_relative_to(folder)), None):
            mapping = source_path(name)
            raise ConfigurationError(
                f"{mapping}:{line_of(mapping, *key.split('.'))}: {key}: {path} is in {inside}",
                "expected raw files elsewhere: RESHELVE_HOME and the system's own folders are closed to mapping files",
            )
    return found


def _full(pattern: str) -> Path:
    if pattern.startswith(_DATA):
        return settings().data / pattern[len(_DATA) :].lstrip("/")
    return PROJECT / pattern


def _hint(pattern: str) -> str:
    return (
        "set RESHELVE_DATA to the directory of the data"
        if pattern.startswith(_DATA)
        else f"relative to {PROJECT}"
    )
