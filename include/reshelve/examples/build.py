"""The examples stage: validated partitions in, tokenised examples, catalogue and held-out questions out.

Everything is read through DuckDB and written in batches: memory is bounded by `examples.max_examples` and the
catalogue, not by the partitions. Equal inputs give equal bytes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from reshelve.clickstream.events import catalogue_key
from reshelve.clickstream.forgotten import Forgotten, read_forgotten
from reshelve.clickstream.forgotten_rows import drop_from_file
from reshelve.clickstream.masks import mask_file
from reshelve.config.ranker import place_of
from reshelve.errors import ConfigurationError, DataError, MisfitError, TryAgainError
from reshelve.examples.catalogue import build_catalogue
from reshelve.examples.formats import EVENTS, write_batches
from reshelve.examples.partitions import Split, choose_partitions
from reshelve.examples.size import check_size
from reshelve.examples.window import open_events, open_window
from reshelve.examples.workspace import Workspace
from reshelve.files import partial_of
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.model.base import BaseModel, resolve_base
from reshelve.model.fitting import check_base
from reshelve.model.kept_base import keep_base, recorded_base
from reshelve.progress import counted
from reshelve.validation.verdicts import read_verdict


@dataclass(frozen=True)
class Inputs:
    """What was fetched: one file per partition, in time order, and the product list where there is one."""

    files: list[Path]
    products: Path | None
    rows: int


def build_examples(run: Run) -> dict[str, Any]:
    """Build the run's examples; see docs/reference/evaluation.md for the files.

    Raises DataError where partitions are missing or stopped, or give no examples, and ConfigurationError where the
    catalogue is too large for a version.
    """
    log = logger(stage="examples", run=run.id)
    split = choose_partitions(run)
    log.info(
        "partitions", train=len(split.train), validation=len(split.validation), holdout=len(split.holdout)
    )
    base = _base(run)
    directory = run.stage("examples").directory
    scratch = directory / ".scratch"
    forgotten = read_forgotten(run.store, run.ranker.data.source)  # before a row is read
    inputs = fetch(run, split, scratch, forgotten)
    shutil.copyfile(base.path / "tokenizer.json", directory / "tokenizer.json")
    (directory / "base.json").write_text(json.dumps(base.record(), indent=1, sort_keys=True))

    labels = run.ranker.data.label_weights
    connection = open_window(inputs.files, split, labels, inputs.products, scratch / "spill")
    excluded = open_events(connection, split, run.ranker.data.exclude)
    if excluded:
        log.info("no products, by what data.exclude says: items", **excluded)
    kind = kind_of(run.ranker.kind)
    kind.examples.prepare(run.ranker, connection, split.begins)
    exact = not run.ranker.remember.privacy.on  # a version has the catalogue in its order
    catalogue = build_catalogue(
        connection, split.begins, run.ranker.data.catalogue_days, listed=kind.listed, by_demand=exact
    )
    catalogue.write(directory / "catalogue.parquet")
    events = write_events(connection, directory / "events.parquet")
    log.info("catalogue", items=len(catalogue), events=events)

    workspace = Workspace(run, directory, scratch, split, connection, catalogue)
    size = check_size(workspace, base)
    counts = kind.examples.write(workspace)
    connection.close()
    _require_examples(run, split, counts)
    shutil.rmtree(scratch)
    log.info("examples", **counts)
    return {
        **counts,
        "items": len(catalogue),
        **size,
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
        "forgotten": forgotten.generation,
        "left_out": list(forgotten.requests),
    }


def _base(run: Run) -> BaseModel:
    """The run's base model. Raises ConfigurationError where one that was fetched only now cannot be packaged."""
    try:
        uri = run.ranker.model.base
        base = recorded_base(uri, run.base, run.store) if run.base else resolve_base(uri, run.store)
        keep_base(uri, base)
        check_base(run.ranker, base.path, two_texts=kind_of(run.ranker.kind).two_texts)
    except MisfitError as error:
        place = place_of(run.ranker.name, error.key)
        raise ConfigurationError(f"{place}: {error.headline}", error.detail) from error
    return base


def fetch(run: Run, split: Split, scratch: Path, forgotten: Forgotten) -> Inputs:
    """Download the good rows, partition by partition, without those of people who are `forgotten`.

    A retry keeps what is there (a new verdict, and somebody more to be forgotten, have new names).
    """
    source, log = run.ranker.data.source, logger(stage="examples")
    files, rows = [], 0
    for day in counted(split.days, log, "fetching", "partitions"):
        path = scratch / f"{day}-{split.digests[day][:16]}{forgotten.generation}.parquet"
        if not path.is_file():
            arriving = partial_of(path)
            run.store.download_file(_good_rows(run, source, day, split.digests[day]), arriving)
            mask_file(arriving)  # days that were validated when less was masked
            drop_from_file(arriving, forgotten, [day])
            arriving.rename(path)
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
        raise TryAgainError(f"partition {day} of {source} was validated again meanwhile", "rerun the stage")
    return verdict.file("good.parquet")


def write_events(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Every label event before the holdout, in time order."""
    columns = ", ".join(EVENTS.names)
    reader = connection.sql(
        f"SELECT {columns} FROM events WHERE part <> 'holdout' ORDER BY event_time, day, line"
    ).to_arrow_reader(65_536)
    return write_batches(path, EVENTS, (batch.cast(EVENTS) for batch in reader))


def _require_examples(run: Run, split: Split, counts: dict[str, int]) -> None:
    days: dict[str, tuple[date, ...]] = {
        "train": split.train, "validation": split.validation, "holdout": split.holdout
    }  # fmt: skip
    expected = kind_of(run.ranker.kind).examples.expected(run.ranker)
    for part, number in counts.items():
        if number == 0:
            raise DataError(
                f"{run.ranker.data.source} gave no {part} examples for {run.ranker.name}",
                f"expected {expected} between {(days[part] or split.train)[0]} and {(days[part] or split.train)[-1]}, "
                f"of type {', '.join(run.ranker.data.events)}",
            )
