"""search: a query text gives an order of the whole catalogue, from text and from what was chosen before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.kind import Kind, KindStage
from reshelve.kinds.misfits import check_no_history, check_whole_catalogue

if TYPE_CHECKING:
    from reshelve.config.ranker import Ranker


class Search(Kind):
    """query → items."""

    name = "search"
    stages = (
        KindStage(
            "blend",
            "reshelve.kinds.search.blend_stage:blend",
            "Search rankers: combine counts of past choices and the transformer's score, using held-out days.",
        ),
    )
    scores_catalogue = True
    two_texts = False
    reads_titles = True
    refreshed_from = ("train", "blend", "compress")
    noisy_counts = True

    def check(self, ranker: Ranker) -> None:
        check_no_history(ranker)
        check_whole_catalogue(ranker)

    def may_show_text(self, ranker: Ranker) -> bool:
        return False


KIND = Search()
