"""next_item: a history of item titles gives items: softmax(W·ReLU(h(x)) + b) over the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.kind import Kind
from reshelve.kinds.misfits import check_whole_catalogue

if TYPE_CHECKING:
    from reshelve.config.ranker import Ranker


class NextItem(Kind):
    """history → items."""

    name = "next_item"
    scores_catalogue = True
    two_texts = False
    listed = False

    def check(self, ranker: Ranker) -> None:
        check_whole_catalogue(ranker)

    def may_show_text(self, ranker: Ranker) -> bool:
        return True  # titles of items, which customers share


KIND = NextItem()
