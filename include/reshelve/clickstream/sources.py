"""The typed form of a clickstream source (`include/clickstreams/<source>.yaml`): raw files mapped onto events by SQL.

A shop's own files reach Reshelve by such a file, never by code: one DuckDB expression per event column,
over the raw columns of one row. The row itself is `source`, so `md5(CAST(source AS VARCHAR))` names it.
What csv and json files hold is text there, letter for letter, until an expression or `options.types` makes it more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from reshelve.clickstream.days import TimeZone
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.reader_options import FileFormat, ReaderOptions, expected_options
from reshelve.errors import ConfigurationError
from reshelve.forms import Form, line_of, load_form, misfit
from reshelve.named_files import names
from reshelve.names import RankerName
from reshelve.settings import PROJECT, settings

_DATA = "${RESHELVE_DATA}"

Expression = Annotated[
    str, Field(min_length=1, description="A DuckDB expression over the columns of one raw row.")
]


class Catalogue(Form):
    """Where a source lists its products."""

    files: str = Field(min_length=1, description="As `files` of the source.")
    format: FileFormat = Field(
        "parquet", description="How the files are written; csv and json (one object a line) may be gzipped."
    )
    options: ReaderOptions = Field(ReaderOptions(), description="As `options` of the source.")
    rows: str | None = Field(None, description="As `rows` of the source: a query whose rows are the items.")
    item_id: Expression
    title: Expression


class ClickstreamSource(Form):
    """How one source's raw files become event partitions."""

    name: RankerName = Field(description="The source's name: the file's name without .yaml.")
    title: str = Field("", description="What a person calls it.")
    licence: str = Field("", description="What may be done with the data.")
    attribution: str = Field("", description="Whom to name where the data is shown.")
    files: str = Field(
        min_length=1,
        description="A path or glob, relative to the project; ${RESHELVE_DATA}/… for data kept outside it.",
    )
    format: FileFormat = Field(
        "parquet", description="How the files are written; csv and json (one object a line) may be gzipped."
    )
    options: ReaderOptions = Field(
        ReaderOptions(), description="How the files are written, beyond their format."
    )
    rows: str | None = Field(
        None,
        description="A DuckDB query over the table `raw` whose rows are the events, where one raw row holds several: "
        "`SELECT *, unnest(items) AS item FROM raw`.",
    )
    leave_out: dict[str, Expression] = Field(
        {},
        description="Rows that are no events for us: a reason in words, and the DuckDB condition of its rows, such as "
        "`no consent: visitor IS NULL`. They are not landed, counted by their (first) reason and named in the result.",
    )
    time_zone: TimeZone = Field(
        "UTC",
        description="Whose clocks the days of this source begin by: a name such as America/Los_Angeles. Times are UTC all the same.",
    )
    event_date: Expression | None = Field(
        None,
        description="The DuckDB expression of the day whose partition a row belongs to. Default: the day of `event_time` in `time_zone`.",
    )
    first_position: Literal[0, 1] = Field(
        1, description="What `position` says of the first place of a shelf. Where that is 0, one is added."
    )
    columns: dict[str, Expression] = Field(description="One DuckDB expression per event column.")
    catalogue: Catalogue | None = Field(None, description="The product list, where there is one.")
    keep_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="Days that rows of this source are kept, landed and judged; older ones are deleted every "
        "night and not landed again. Default: for ever.",
    )
    rules: RankerName = Field(
        "clickstream", description="The file in include/expectations/ its partitions are held to."
    )

    @model_validator(mode="after")
    def _every_column_once(self) -> ClickstreamSource:
        missing = [name for name in EVENT_SCHEMA.names if name not in self.columns]
        unknown = [name for name in self.columns if name not in EVENT_SCHEMA.names]
        if missing:
            raise misfit(
                f"no expression for {', '.join(missing)} (write NULL where it is not known)", "columns"
            )
        if unknown:
            said = f"{', '.join(unknown)} is no event column: {', '.join(EVENT_SCHEMA.names)}"
            raise misfit(said, "columns", unknown[0])
        return self


def source_path(name: str) -> Path:
    """The mapping file of source `name`. Raises ConfigurationError listing the known sources."""
    directory = settings().clickstreams_dir
    path = directory / f"{name}.yaml"
    known = names(directory)
    if name not in known:
        raise ConfigurationError(
            f"{name!r} is no clickstream source", f"known in {directory}: {', '.join(known) or 'none'}"
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


def _check_options(path: Path, key: str, file_format: FileFormat, options: ReaderOptions) -> None:
    for name in options.foreign(file_format):
        line = line_of(path, *key.split("."), name)
        raise ConfigurationError(
            f"{path}:{line}: {key}.{name}: no option of {file_format}", expected_options(file_format)
        )


def raw_files(name: str, key: str, pattern: str) -> list[Path]:
    """The files that `pattern` (of `key` in source `name`) means, sorted.

    Raises ConfigurationError where there are none.
    """
    if pattern.startswith(_DATA):
        full = settings().data / pattern[len(_DATA) :].lstrip("/")
    else:
        full = PROJECT / pattern
    found = sorted(Path(full.anchor).glob(str(full.relative_to(full.anchor))))
    if not found:
        path = source_path(name)
        hint = (
            "set RESHELVE_DATA to where the data is"
            if pattern.startswith(_DATA)
            else f"relative to {PROJECT}"
        )
        raise ConfigurationError(
            f"{path}:{line_of(path, *key.split('.'))}: {key}: no file at {full}", f"{pattern}: {hint}"
        )
    return found
