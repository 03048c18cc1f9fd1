"""Held-out questions alone, of any days of any source: for versions that were trained before."""

from __future__ import annotations

from pathlib import Path

from reshelve.clickstream.forgotten import read_forgotten
from reshelve.errors import DataError
from reshelve.examples.build import fetch, write_events
from reshelve.examples.catalogue import Catalogue, build_catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.partitions import Split
from reshelve.examples.window import open_events, open_window
from reshelve.examples.workspace import Workspace
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run


def held_out(
    run: Run, split: Split, directory: Path, known: Catalogue
) -> tuple[list[HoldoutQuery], Catalogue]:
    """The questions of `split.holdout`, drawn as the examples stage draws them, and the candidates of that morning.

    Nothing of the run is written: files go below `directory`, `events.parquet` among them. Where the days before hold no
    event, the candidates are the `known` items. Raises DataError where the days give no question.
    """
    ranker, scratch = run.ranker, directory / ".scratch"
    scratch.mkdir(parents=True)
    inputs = fetch(run, split, scratch, read_forgotten(run.store, ranker.data.source))
    labels = ranker.data.label_weights
    connection = open_window(inputs.files, split, labels, inputs.products, scratch / "spill")
    open_events(connection, split, ranker.data.exclude)
    kind = kind_of(ranker.kind)
    kind.examples.prepare(ranker, connection, split.begins)
    try:
        catalogue = build_catalogue(connection, split.begins, ranker.data.catalogue_days, listed=kind.listed)
    except DataError:
        catalogue = known
    write_events(connection, directory / "events.parquet")
    questions = kind.examples.held_out(Workspace(run, directory, scratch, split, connection, catalogue))
    connection.close()
    if not questions:
        raise DataError(
            f"{ranker.data.source} gave no question for {ranker.name} between {split.holdout[0]} and {split.holdout[-1]}",
            f"expected {kind.examples.expected(ranker)} of type {', '.join(ranker.data.events)}",
        )
    return questions, catalogue
