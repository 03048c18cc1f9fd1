"""What a format of raw files is: a name, the endings of its files, and the query over their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb

from reshelve.raw.reader_options import ReaderOptions

Query = Callable[[duckdb.DuckDBPyConnection, Sequence[Path], ReaderOptions, str | None], str]
"""(database, files, options, name of a further column with the file of each row, or None) → the SQL of all rows of the files, in
their order. Raises duckdb.Error, or RawFileError, which says what is wrong.
"""


class Fault(NamedTuple):
    """A row that cannot be read."""

    path: Path
    line: int
    problem: str


Rejects = Callable[[duckdb.DuckDBPyConnection, Sequence[Path], ReaderOptions], Iterable[Fault]]
"""The rows that the query left out because they cannot be read."""

Explain = Callable[[Sequence[Path], str], Fault | None]
"""(files, DuckDB's message) → the row at fault, where the message does not say it."""


@dataclass(frozen=True)
class RawFormat:
    """One format. What is here is all that the rest of the package knows of it."""

    name: str
    called: str  # for a person: "a CSV file with a header"
    endings: tuple[str, ...]  # `.csv`; files of text may have `.gz` after it
    sql: Query
    options: frozenset[str] = frozenset()  # the ReaderOptions that mean something for it
    is_text: bool = True  # values are text, letter for letter, until a mapping makes more of them
    rejects: Rejects = lambda db, files, options: ()
    explain: Explain = lambda files, message: None

    @property
    def all_endings(self) -> tuple[str, ...]:
        """With those of compressed files."""
        zipped = tuple(f"{ending}.gz" for ending in self.endings) if "encoding" in self.options else ()
        return (*self.endings, *zipped)

    def foreign(self, options: ReaderOptions) -> list[str]:
        """The options that are given and mean nothing for its files."""
        return sorted(options.model_fields_set - self.options)

    @property
    def expected_options(self) -> str:
        """Its options, for a person."""
        return f"expected of {self.name}: {', '.join(sorted(self.options)) or 'none'}"
