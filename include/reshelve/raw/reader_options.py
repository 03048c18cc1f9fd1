"""How raw files are written, where the defaults of their format do not say it: `options` of a mapping file."""

from __future__ import annotations

import codecs

from pydantic import Field, field_validator

from reshelve.config.yaml_models import Form


class ReaderOptions(Form):
    """Reader options that the format alone does not determine. Values are read as text unless `types` says otherwise (csv, json)."""

    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description='csv: the field separator, `"\\t"` for tabs. Default: the most frequent of , ; tab | in '
        "the first line.",
    )
    header: bool = Field(True, description="csv: the first line holds the columns' names.")
    names: tuple[str, ...] = Field(
        (),
        description="csv: the column names, for files without a header or instead of the header. Default without "
        "a header: column0, column1, …",
    )
    quote: str = Field('"', max_length=1, description='csv: the quote character; "" for none.')
    escape: str = Field(
        '"', max_length=1, description="csv: the character that escapes a quote within a field."
    )
    comment: str = Field(
        "", max_length=1, description="csv: lines that begin with this are skipped. Default: none."
    )
    skip: int = Field(0, ge=0, description="csv: number of lines to skip before the header.")
    strict: bool = Field(
        True, description="csv: false accepts malformed lines (stray quotes, mixed line ends)."
    )
    null_padding: bool = Field(False, description="csv: fill missing fields of short lines with NULL.")
    null_strings: tuple[str, ...] = Field(
        (),
        description="Texts read as NULL, such as `(not set)`, in addition to the empty text; also within objects "
        "and lists of json and parquet.",
    )
    encoding: str = Field(
        "utf-8", description="csv, json: the character encoding: cp1252, latin-1, utf-16, shift_jis, …"
    )
    types: dict[str, str] = Field(
        {},
        description="DuckDB types of columns: `price: DOUBLE`. Default: VARCHAR for csv and json (also within "
        "objects and lists), the file's own types for parquet. JSON: a csv field with an object or a "
        "list; its numbers keep their written form.",
    )
    union_by_name: bool = Field(
        True,
        description="csv, parquet: true: files may have different columns, and missing ones are NULL. false: "
        "such files are refused.",
    )
    sample_size: int | None = Field(
        None, ge=1, description="json: number of rows inspected to find the keys. Default: all."
    )
    max_rejects: int = Field(
        0,
        ge=0,
        description="csv, json (one object a line): maximum number of unreadable rows to skip. Each is counted "
        "and listed; one more stops landing.",
    )

    @field_validator("encoding")
    @classmethod
    def _encodes_text(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except LookupError:
            raise ValueError(
                "not an encoding that Python supports, such as utf-8, cp1252, latin-1, utf-16, shift_jis"
            ) from None
        return encoding

    @field_validator("types")
    @classmethod
    def _are_types(cls, types: dict[str, str]) -> dict[str, str]:
        import duckdb

        from reshelve.clickstream.database import connect
        from reshelve.raw.statements import StatementError, allow_type

        if not types:
            return types
        with connect() as db:
            for name, sql_type in types.items():
                try:
                    duckdb.type(sql_type, connection=db)
                    allow_type(db, sql_type)
                except (duckdb.Error, StatementError):
                    raise ValueError(f"{name}: {sql_type!r} is not a DuckDB type") from None
        return types
