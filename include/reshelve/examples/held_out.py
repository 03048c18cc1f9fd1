"""Held-out questions alone, of any days of any source: for versions that were trained before."""

from __future__ import annotations

from pathlib import Path

from reshelve.errors import DataError
from reshelve.examples import next_item, pair, shown
from reshelve.examples.build import fetch, write_events
from reshelve.examples.catalogue import Catalogue, build_catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.pair_files import held_out_pairs
from reshelve.examples.partitions import Split
from reshelve.examples.window import open_events, open_window
from reshelve.examples.workspace import Workspace
from reshelve.lineage import Run
from reshelve.rankers import Kind, Ranker


def held_out(
    run: Run, split: Split, directory: Path, known: Catalogue
) -> tuple[list[HoldoutQuery], Catalogue]:
    """The questions of `split.holdout`, drawn as the examples stage draws them, and the candidates of that morning.

    Nothing of the run is written: files go below `directory`, `events.parquet` among them. Where the days before hold no
    event, the candidates are the `known` items. Raises DataError where the days give no question.
    """
    ranker, scratch = run.ranker, directory / ".scratch"
    scratch.mkdir(parents=True)
    inputs = fetch(run, split, scratch)
    labels = {str(name): weight for name, weight in ranker.data.events.items()}
    connection = open_window(inputs.files, split, labels, inputs.products, scratch / "spill")
    open_events(connection, split, ranker.data.exclude)
    if ranker.examples.labels == "impressions":
        shown.list_shown(connection, split.begins)
    try:
        listed = ranker.kind is not Kind.NEXT_ITEM
        catalogue = build_catalogue(connection, split.begins, ranker.data.catalogue_days, listed=listed)
    except DataError:
        catalogue = known
    write_events(connection, directory / "events.parquet")
    questions = _questions(Workspace(run, directory, scratch, split, connection, catalogue))
    connection.close()
    if not questions:
        raise DataError(
            f"{ranker.data.source} gave no question for {ranker.name} between {split.holdout[0]} and {split.holdout[-1]}",
            f"expected events of type {', '.join(ranker.data.events)}{_needs(ranker)}",
        )
    return questions, catalogue


def _questions(work: Workspace) -> list[HoldoutQuery]:
    ranker, connection = work.run.ranker, work.connection
    most, seed = ranker.gates.max_queries, ranker.training.seed
    if ranker.kind is Kind.PAIR:
        return list(held_out_pairs(work))
    if ranker.kind is Kind.SEARCH:
        return list(pair.held_out(connection, lambda _: [], most, seed))
    asked = next_item.collect_questions(
        connection,
        known=work.catalogue.items,
        history_items=ranker.examples.history_items,
        train=0,
        validation=0,
        holdout=most,
        seed=seed,
        repeat=ranker.examples.repeat,
    )
    return [question.held_out() for question in asked.holdout]


def _needs(ranker: Ranker) -> str:
    return ", two items in a basket" if ranker.kind is Kind.NEXT_ITEM else " with a query and an item"
