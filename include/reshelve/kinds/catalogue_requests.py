"""Requests of the kinds that order the whole catalogue for one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reshelve.kind import Inputs, Requests

if TYPE_CHECKING:
    from reshelve.client.client import Answer
    from reshelve.export.heldout import HeldOutQuestion

_TOP = 10


class CatalogueRequests(Requests):
    """One text in; item, title and score [B, K] out."""

    unit = "texts"
    rows = 1
    text: ClassVar[str]  # what the signature calls the customer's text

    def of_questions(self, questions: Sequence[HeldOutQuestion], size: int, start: int = 0) -> Inputs:
        return {self.text: [q.text for q in islice(cycle(questions), start, start + size)]}

    def of_log(self, text: str) -> Inputs | None:
        return {self.text: [text]}

    def of_text(self, text: str) -> Inputs | None:
        return {self.text: [text]}

    def problem(self, inputs: Inputs, outputs: Mapping[str, Any]) -> str | None:
        items, scores = outputs["item"], outputs["score"]
        if items.shape != scores.shape:
            return f"items {items.shape} and scores {scores.shape} do not fit each other"
        return None

    def agreement(self, old: Answer, new: Answer) -> float | None:
        """The mean share of the first ten items in common."""
        if "item" not in old.outputs or "item" not in new.outputs:
            return None
        rows = zip(old.outputs["item"], new.outputs["item"], strict=False)
        shared = [len(set(a[:_TOP]) & set(b[:_TOP])) / len(a[:_TOP]) for a, b in rows if len(a)]
        return float(np.mean(shared)) if shared else None
