"""Whether a version of this catalogue can be written, asked before an example is made of it."""

from __future__ import annotations

from reshelve.config.ranker import Ranker, place_of
from reshelve.errors import ConfigurationError
from reshelve.examples.workspace import Workspace
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.model.base import BaseModel
from reshelve.model.graph_size import FLOAT, MOST_BYTES, GraphSize
from reshelve.model.ranker_form import ranker_form

NEAR = 0.8  # of what a version may have


def check_size(work: Workspace, base: BaseModel) -> dict[str, int]:
    """`graph_bytes`, `served_bytes` and `items_that_fit`; nothing of a kind whose graph is not foretold. A log line where it is near.

    Raises ConfigurationError where even the least that such a version holds is more than it may.
    """
    tables = kind_of(work.run.ranker.kind).examples.tables(work)
    if tables is None:
        return {}
    ranker, items = work.run.ranker, len(work.catalogue)
    form = ranker_form(  # how token states are pooled changes no size
        base.path, kind=ranker.kind, pooling="mean", max_length=ranker.model.max_length, items=items
    )
    size = GraphSize.of(form, base.path / "tokenizer.json", tables, served_precision(ranker))
    fits = size.items_that_fit(items)
    if size.least > MOST_BYTES:
        place = place_of(ranker.name, "data.catalogue_days")
        raise ConfigurationError(f"{place}: {too_large(items, size.least)}", advice(ranker, fits))
    if size.most > NEAR * MOST_BYTES:
        logger(stage="examples", run=work.run.id).warning(
            "the version comes near the largest that can be written",
            items=items, gigabytes=gigabytes(size.most), most_gigabytes=gigabytes(MOST_BYTES), items_that_fit=fits,
        )  # fmt: skip
    return {"graph_bytes": size.most, "served_bytes": size.served, "items_that_fit": fits}


def too_large(items: int, found: int) -> str:
    """The refusal in one sentence."""
    return (
        f"{items:,} products make a version of at least {gigabytes(found)} GB, and {gigabytes(MOST_BYTES)} GB is the most that one "
        "may have (its graph is one protobuf message, and its float form is written whatever is compressed)"
    )


def advice(ranker: Ranker, fits: int) -> str:
    """What to do about it."""
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
