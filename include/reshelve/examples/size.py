"""Whether a version of this catalogue can be written, asked before an example is made of it.

Memory is asked where training begins (`training.memory`): it takes more of it than anything after it.
"""

from __future__ import annotations

import shutil

from reshelve.config.ranker import Ranker, place_of
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.examples.workspace import Workspace
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.model.base import BaseModel
from reshelve.model.graph_size import FLOAT, MOST_BYTES, GraphSize
from reshelve.model.ranker_form import ranker_form

NEAR = 0.8  # of what a graph may have


def check_size(work: Workspace, base: BaseModel) -> dict[str, int]:
    """`version_bytes`, `served_bytes`, and `items_that_fit` where the graph grows with the catalogue; nothing of a kind that foretells none.

    Raises ConfigurationError where even the least that such a graph holds is more than it may, TryAgainError where the disk
    has no room for the versions that the night writes. A log line where the graph comes near.
    """
    tables = kind_of(work.run.ranker.kind).examples.tables(work)
    if tables is None:
        return {}
    ranker, items = work.run.ranker, len(work.catalogue)
    form = ranker_form(  # how token states are pooled changes no size
        base.path, kind=ranker.kind, pooling="mean", max_length=ranker.model.max_length, items=items
    )
    size = GraphSize.of(form, base.path / "tokenizer.json", tables, served_precision(ranker))
    _check_graph(work, size)
    _check_disk(work, size)
    found = {"version_bytes": size.version, "served_bytes": size.served}
    fits = size.items_that_fit(items)
    return found if fits is None else {**found, "items_that_fit": fits}


def _check_graph(work: Workspace, size: GraphSize) -> None:
    ranker, items = work.run.ranker, len(work.catalogue)
    fits = size.items_that_fit(items)
    if size.least > MOST_BYTES:
        key = "model.base" if fits in (None, 0) else "data.catalogue_days"
        raise ConfigurationError(
            f"{place_of(ranker.name, key)}: {too_large(items, size.least)}", advice(ranker, fits)
        )
    if size.most > NEAR * MOST_BYTES:
        logger(stage="examples", run=work.run.id).warning(
            "the version's graph comes near the largest that can be written",
            items=items, gigabytes=gigabytes(size.most), most_gigabytes=gigabytes(MOST_BYTES), items_that_fit=fits,
        )  # fmt: skip


def _check_disk(work: Workspace, size: GraphSize) -> None:
    """Compression has two versions on disk at once, the package stage one."""
    need = size.version + (size.served if work.run.ranker.compression.steps else 0)
    free = shutil.disk_usage(work.directory).free
    if need > free:
        raise TryAgainError(
            f"{len(work.catalogue):,} products make versions of {gigabytes(need)} GB, and the disk of {work.directory} has "
            f"{gigabytes(free)} GB free",
            "expected room for them: free some, move RESHELVE_HOME to a larger disk, or take fewer products by "
            "data.catalogue_days or data.exclude",
        )


def too_large(items: int, found: int) -> str:
    """The refusal in one sentence."""
    return (
        f"{items:,} products make a version whose graph has at least {gigabytes(found)} GB, and {gigabytes(MOST_BYTES)} GB is the most "
        "that one may have (it is one protobuf message, and its float form is written whatever is compressed)"
    )


def advice(ranker: Ranker, fits: int | None) -> str:
    """What to do about it. `fits`: products that fit; None where their number does not matter."""
    if not fits:
        return "expected a model.base with a smaller vocabulary or hidden_size"
    listed = ", a shorter product list" if kind_of(ranker.kind).listed else ""
    return (
        f"expected at most some {fits:,} products like these: take fewer by data.catalogue_days (now "
        f"{ranker.data.catalogue_days}), data.exclude{listed}; or a model.base with a smaller hidden_size"
    )


def served_precision(ranker: Ranker) -> str:
    """Of the version that ships, if every step stays."""
    return next((step.precision for step in reversed(ranker.compression.steps) if step.precision), FLOAT)


def gigabytes(count: int) -> str:
    """`2.1`."""
    return f"{count / 1e9:.1f}"
