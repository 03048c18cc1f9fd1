"""What several kinds refuse in a ranker file. Each raises the error of the key that is to be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.config.yaml_models import misfit

if TYPE_CHECKING:
    from reshelve.config.ranker import Ranker


def check_no_history(ranker: Ranker) -> None:
    """Of a kind that reads a query: no history holds items that could be repeated."""
    if not ranker.examples.repeat:
        said = f"only next_item has a history; {ranker.kind} has none"
        raise misfit(said, "examples", "repeat")


def check_whole_catalogue(ranker: Ranker) -> None:
    """Of a kind that orders the whole catalogue for one text."""
    kind, examples = ranker.kind, ranker.examples
    if ranker.data.split == "query":
        raise misfit("only pair rankers can be split by query", "data", "split")
    for key, given in (("labels", examples.labels != "choices"), ("features", bool(examples.features))):
        if given:
            said = f"examples.labels and examples.features are only for pair, not for {kind}"
            raise misfit(said, "examples", key)
    if ranker.model.towers:
        raise misfit(f"only pair has two texts; {kind} has one", "model", "towers")
    if ranker.training.loss != "pointwise":
        raise misfit(f"{ranker.training.loss} is for pair; {kind} has one loss", "training", "loss")
    _check_metric(ranker)


def _check_metric(ranker: Ranker) -> None:
    metric, top = ranker.gates.metric, ranker.release.top
    if metric == "auc":
        raise misfit(
            "auc needs the rank of every candidate, but only the top of a catalogue is returned",
            "gates",
            "metric",
        )
    depth = int(metric.partition("@")[2] or 0)
    if depth > top:
        raise misfit(
            f"{metric} is deeper than the answer: expected release.top of at least {depth}, got {top}",
            "gates",
            "metric",
        )
