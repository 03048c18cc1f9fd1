"""The examples stage: validated partitions in, tokenised examples, catalogue and held-out questions out.

Everything is read through DuckDB and written in batches: memory is bounded by `examples.max_examples` and the
catalogue, not by the partitions. Equal inputs give equal bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from reshelve.clickstream.events import catalogue_key
from reshelve.clickstream.verdicts import read_verdict
from reshelve.errors import ConfigurationError, DataError, MisfitError, TryAgainError
from reshelve.examples import next_item, pair, search, shown
from reshelve.examples.catalogue import build_catalogue
from reshelve.examples.formats import EVENTS, HOLDOUT, NEXT_ITEM, write_batches, write_rows
from reshelve.examples.misspelling import Misspelling
from reshelve.examples.pair_files import write_pairs
from reshelve.examples.partitions import Split, choose_partitions
from reshelve.examples.readers import to_draw
from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.examples.window import open_events, open_window
from reshelve.examples.workspace import Workspace, reading
from reshelve.lineage import Run
from reshelve.logs import logger
from reshelve.packaging.fitting import check_base
from reshelve.progress import counted
from reshelve.rankers import Kind, place_of
from reshelve.training.base import BaseModel, resolve_base
from reshelve.training.kept_base import keep_base, recorded_base


@dataclass(frozen=True)
class Inputs:
    """What was fetched: one file per partition, in time order, and the product list where there is one."""

    files: list[Path]
    products: Path | None
    rows: int


def build_examples(run: Run) -> dict[str, Any]:
    """Build the run's examples; see docs/reference/evaluation.md for the files.

    Raises DataError where partitions are missing or stopped, or give no examples.
    """
    log = logger(stage="examples", run=run.id)
    split = choose_partitions(run)
    log.info(
        "partitions", train=len(split.train), validation=len(split.validation), holdout=len(split.holdout)
    )
    base = _base(run)
    directory = run.stage("examples").directory
    scratch = directory / ".scratch"
    inputs = fetch(run, split, scratch)
    shutil.copyfile(base.path / "tokenizer.json", directory / "tokenizer.json")
    (directory / "base.json").write_text(json.dumps(base.record(), indent=1, sort_keys=True))

    labels = {str(name): weight for name, weight in run.ranker.data.events.items()}
    connection = open_window(inputs.files, split, labels, inputs.products, scratch / "spill")
    excluded = open_events(connection, split, run.ranker.data.exclude)
    if excluded:
        log.info("no products, by what data.exclude says: items", **excluded)
    if run.ranker.examples.labels == "impressions":
        shown.list_shown(connection, split.begins)
    searched = run.ranker.kind is not Kind.NEXT_ITEM  # what nobody has clicked yet can be searched for
    catalogue = build_catalogue(connection, split.begins, run.ranker.data.catalogue_days, listed=searched)
    catalogue.write(directory / "catalogue.parquet")
    events = write_events(connection, directory / "events.parquet")
    log.info("catalogue", items=len(catalogue), events=events)

    workspace = Workspace(run, directory, scratch, split, connection, catalogue)
    counts = _FILES[run.ranker.kind](workspace)
    connection.close()
    _require_examples(run, split, counts)
    shutil.rmtree(scratch)
    log.info("examples", **counts)
    return {
        **counts,
        "items": len(catalogue),
        "partitions": len(split.days),
        "train_partitions": [str(split.train[0]), str(split.train[-1])],
        "validation_partitions": [str(day) for day in split.validation],
        "holdout_partitions": [str(day) for day in split.holdout],
        "holdout_begins": str(split.begins),
        "fold": split.fold.number if split.fold else None,
        "excluded_partitions": {str(day): verdict for day, verdict in split.excluded.items()},
        "excluded_items": excluded,
        "rows_read": inputs.rows,
        "source": run.ranker.data.source,
        "verdicts": {str(day): split.digests[day] for day in split.days},
        "base": base.record(),
    }


def _base(run: Run) -> BaseModel:
    """The run's base model. Raises ConfigurationError where one that was fetched only now cannot be packaged."""
    try:
        uri = run.ranker.model.base
        base = recorded_base(uri, run.base, run.store) if run.base else resolve_base(uri, run.store)
        keep_base(uri, base)
        check_base(run.ranker, base.path)
    except MisfitError as error:
        place = place_of(run.ranker.name, error.key)
        raise ConfigurationError(f"{place}: {error.headline}", error.detail) from error
    return base


def fetch(run: Run, split: Split, scratch: Path) -> Inputs:
    """Download the good rows, partition by partition; a retry keeps what is there (a new verdict has a new name)."""
    source, log = run.ranker.data.source, logger(stage="examples")
    files, rows = [], 0
    for day in counted(split.days, log, "fetching", "partitions"):
        path = scratch / f"{day}-{split.digests[day][:16]}.parquet"
        if not path.is_file():
            run.store.download_file(_good_rows(run, source, day, split.digests[day]), path)
        files.append(path)
        rows += pq.read_metadata(path).num_rows
    log.info("fetched", partitions=len(files), rows=rows)
    products = None
    if run.store.exists(catalogue_key(source)):
        products = scratch / "products.parquet"
        run.store.download_file(catalogue_key(source), products)
    return Inputs(files, products, rows)


def _good_rows(run: Run, source: str, day: date, digest: str) -> str:
    """The key of a verdict's good rows. Raises TryAgainError where the day was judged again since it was chosen."""
    verdict = read_verdict(run.store, source, day)
    if verdict is None or verdict.digest != digest:
        raise TryAgainError(
            f"partition {day} of {source} was judged again meanwhile", "start the stage again"
        )
    return verdict.file("good.parquet")


def write_events(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Every label event before the holdout, in time order."""
    columns = ", ".join(EVENTS.names)
    reader = connection.sql(
        f"SELECT {columns} FROM events WHERE part <> 'holdout' ORDER BY event_time, day, line"
    ).to_arrow_reader(65_536)
    return write_batches(path, EVENTS, (batch.cast(EVENTS) for batch in reader))


def _next_item_files(work: Workspace) -> dict[str, int]:
    ranker = work.run.ranker
    questions = next_item.collect_questions(
        work.connection,
        known=work.catalogue.items,
        history_items=ranker.examples.history_items,
        train=ranker.examples.max_examples,
        validation=work.limits["validation"],
        holdout=to_draw(ranker),
        seed=ranker.training.seed,
        repeat=ranker.examples.repeat,
    )
    tokenizer = load_tokenizer(work.directory / "tokenizer.json", ranker.model.max_length)

    def rows(asked: list[next_item.Question], reading: Misspelling) -> Iterator[dict[str, Any]]:
        encodings = encode(tokenizer, (reading.of(question.text) for question in asked))
        for question, encoding in zip(asked, encodings, strict=True):
            known = [
                (work.catalogue.index[item], weight)
                for item, weight in zip(question.rest, question.weights, strict=True)
                if item in work.catalogue.index
            ]
            targets, weights = zip(*known, strict=True)
            weight = sum(weights) / len(weights)
            yield {"input_ids": encoding.ids, "targets": list(targets), "weight": weight}

    return {
        part: write_rows(work.directory / f"{part}.parquet", NEXT_ITEM, rows(asked, reading(ranker, part)))
        for part, asked in (("train", questions.train), ("validation", questions.validation))
    } | {
        "holdout": write_rows(
            work.directory / "holdout.parquet", HOLDOUT, (q.held_out().row() for q in questions.holdout)
        ),
    }


def _search_files(work: Workspace) -> dict[str, int]:
    ranker = work.run.ranker
    tokenizer = load_tokenizer(work.directory / "tokenizer.json", ranker.model.max_length)

    def rows(part: str, limit: int) -> Iterator[dict[str, Any]]:
        misspelt = reading(ranker, part)
        found = list(search.choices(work.connection, work.catalogue, part, limit))
        encodings = encode(tokenizer, (misspelt.of(choice.query) for choice in found))
        return (choice.row(encoding.ids) for choice, encoding in zip(found, encodings, strict=True))

    counts = {
        part: write_rows(work.directory / f"{part}.parquet", NEXT_ITEM, rows(part, limit))
        for part, limit in work.limits.items()
    }
    asked = pair.held_out(work.connection, lambda _: [], to_draw(ranker), ranker.training.seed)
    counts["holdout"] = write_rows(
        work.directory / "holdout.parquet", HOLDOUT, (query.row() for query in asked)
    )
    return counts


_FILES = {Kind.NEXT_ITEM: _next_item_files, Kind.SEARCH: _search_files, Kind.PAIR: write_pairs}


def _require_examples(run: Run, split: Split, counts: dict[str, int]) -> None:
    days: dict[str, tuple[date, ...]] = {
        "train": split.train, "validation": split.validation, "holdout": split.holdout
    }  # fmt: skip
    expected = {
        Kind.NEXT_ITEM: "baskets or customers with two items",
        Kind.SEARCH: "searches (query and item)",
        Kind.PAIR: f"{run.ranker.examples.labels} (query and item)",
    }[run.ranker.kind]
    for part, number in counts.items():
        if number == 0:
            raise DataError(
                f"{run.ranker.data.source} gave no {part} examples for {run.ranker.name}",
                f"expected {expected} between {(days[part] or split.train)[0]} and {(days[part] or split.train)[-1]}, "
                f"of type {', '.join(run.ranker.data.events)}",
            )
