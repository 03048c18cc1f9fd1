"""How raw files are written, where the defaults of their format do not say it: `options` of a mapping file."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import Field, field_validator

from reshelve.forms import Form

FileFormat = Literal["parquet", "csv", "json"]

_KNOWN = {
    "parquet": {"null_strings", "types", "union_by_name"},
    "json": {"encoding", "max_rejects", "null_strings", "sample_size", "types"},
    "csv": {
        "comment", "delimiter", "encoding", "escape", "header", "max_rejects", "names", "null_padding", "null_strings",
        "quote", "skip", "strict", "types", "union_by_name",
    },
}  # fmt: skip


class ReaderOptions(Form):
    """What of a file's form cannot be known from its format. Values are text unless `types` says more (csv, json)."""

    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description='csv: what stands between two fields, `"\\t"` for tabs. Default: what the first line has most of , ; tab |.',
    )
    header: bool = Field(True, description="csv: the first line holds the columns' names.")
    names: tuple[str, ...] = Field(
        (),
        description="csv: the columns' names, for files without a header, or in place of what the header says. "
        "Default without a header: column0, column1, …",
    )
    quote: str = Field(
        '"', max_length=1, description='csv: what fields with delimiters stand in; "" for none.'
    )
    escape: str = Field('"', max_length=1, description="csv: what stands before a quote within a field.")
    comment: str = Field(
        "", max_length=1, description="csv: lines that begin with it are left out. Default: none are."
    )
    skip: int = Field(0, ge=0, description="csv: lines before the header that are no data.")
    strict: bool = Field(
        True, description="csv: false takes lines that CSV does not allow (stray quotes, mixed line ends)."
    )
    null_padding: bool = Field(
        False, description="csv: lines that are too short have NULL in the fields that are missing."
    )
    null_strings: tuple[str, ...] = Field(
        (),
        description="Texts that stand for NULL (`(not set)`), beside the empty one; in the objects and lists of json and parquet as well.",
    )
    encoding: str = Field(
        "utf-8", description="csv, json: how characters are written: cp1252, latin-1, utf-16, shift_jis, …"
    )
    types: dict[str, str] = Field(
        {},
        description="DuckDB types of columns: `price: DOUBLE`. Default: VARCHAR for all that csv and json hold "
        "(json: in its objects and lists as well), the file's own types for parquet. JSON: a field of csv that holds an object or a list, its numbers as they are written.",
    )
    union_by_name: bool = Field(
        True,
        description="csv, parquet: files may have different columns, NULL where a file has none. false: refuse them.",
    )
    sample_size: int | None = Field(
        None, ge=1, description="json: rows that are looked at to learn the keys. Default: every row."
    )
    max_rejects: int = Field(
        0,
        ge=0,
        description="csv, json (one object a line): rows that may be left out because they cannot be read. Each is "
        "counted and named; one more stops the landing.",
    )

    @field_validator("encoding")
    @classmethod
    def _encodes_text(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except LookupError:
            raise ValueError(
                "no encoding that Python knows, such as utf-8, cp1252, latin-1, utf-16, shift_jis"
            ) from None
        return encoding

    @field_validator("types")
    @classmethod
    def _are_types(cls, types: dict[str, str]) -> dict[str, str]:
        import duckdb

        for name, sql_type in types.items():
            try:
                duckdb.type(sql_type)
            except duckdb.Error:
                raise ValueError(f"{name}: {sql_type!r} is no type of DuckDB") from None
        return types

    def foreign(self, file_format: FileFormat) -> list[str]:
        """The options that are given and mean nothing for files of that format."""
        return sorted(self.model_fields_set - _KNOWN[file_format])


def expected_options(file_format: FileFormat) -> str:
    """The options of a format, for a person."""
    return f"expected of {file_format}: {', '.join(sorted(_KNOWN[file_format]))}"
