"""pair: a query and an item give a score. Search, ads, relevance: candidates that somebody else has found are put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.config.yaml_models import misfit
from reshelve.kind import Kind
from reshelve.kinds.misfits import check_no_history

if TYPE_CHECKING:
    from reshelve.config.ranker import Ranker


class Pair(Kind):
    """(query, item) → score."""

    name = "pair"
    scores_catalogue = False
    two_texts = True

    def check(self, ranker: Ranker) -> None:
        check_no_history(ranker)
        examples = ranker.examples
        if examples.labels == "choices" and not examples.sampled_negatives + examples.hard_negatives:
            raise misfit(
                "choices need negatives: expected sampled_negatives or hard_negatives above 0",
                "examples",
                "sampled_negatives",
            )

    def may_show_text(self, ranker: Ranker) -> bool:
        return ranker.examples.labels == "judgements"


KIND = Pair()
