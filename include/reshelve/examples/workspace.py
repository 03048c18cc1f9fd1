"""What every step of the examples stage needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from reshelve.config.ranker import Ranker
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.misspelling import Misspelling
from reshelve.examples.partitions import Split
from reshelve.lineage.run import Run

_VALIDATION_SHARE = 0.25  # of max_examples: enough to compare trials, cheap enough to do it often


@dataclass(frozen=True)
class Workspace:
    """A run's directories, its split, the window's events and the catalogue."""

    run: Run
    directory: Path
    scratch: Path
    split: Split
    connection: duckdb.DuckDBPyConnection
    catalogue: Catalogue

    @property
    def limits(self) -> dict[str, int]:
        """Most examples by part."""
        most = self.run.ranker.examples.max_examples
        return {"train": most, "validation": int(most * _VALIDATION_SHARE)}


def reading(ranker: Ranker, part: str) -> Misspelling:
    """Only training texts are misspelt: what is measured stays what customers typed."""
    return Misspelling(ranker.examples.misspell if part == "train" else 0.0, ranker.training.seed)
