"""Requests of pair: one query, and the ids of the items to be scored for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from reshelve.kind import Inputs, Requests
from reshelve.kinds.query_requests import ReadsQuery
from reshelve.statistics.correlation import spearman

if TYPE_CHECKING:
    from reshelve.client.client import Answer
    from reshelve.export.heldout import HeldOutQuestion
    from reshelve.protocol.version_items import Item

_CANDIDATES = 8


class PairRequests(ReadsQuery, Requests):
    """`query` [1] and `item` [B] in; `score` [B] out."""

    unit = "candidates"
    rows = 32
    tokens = 64

    def of_questions(self, questions: Sequence[HeldOutQuestion], size: int, start: int = 0) -> Inputs:
        question = questions[start % len(questions)]
        return {"query": [question.text], "item": list(islice(cycle(question.candidates), size))}

    def of_log(self, text: str) -> Inputs | None:
        return None  # of the candidates only the best are logged

    def of_text(self, text: str) -> Inputs | None:
        return None

    def candidates_signature(self) -> str | None:
        return "serving_default"

    def probe(self, items: list[Item]) -> Inputs:
        wanted = sorted(items, key=lambda item: -item.events)
        return {"query": [wanted[0].title], "item": [item.id for item in wanted[:_CANDIDATES]]}

    def problem(self, inputs: Inputs, outputs: Mapping[str, Any]) -> str | None:
        scores, asked = outputs["score"], inputs["item"]
        return None if scores.size == len(asked) else f"{scores.size} scores for {len(asked)} items"

    def agreement(self, old: Answer, new: Answer) -> float | None:
        """Spearman's correlation. 0 where the new version has lost an order that the old one had, all its scores being equal."""
        a, b = (np.asarray(x.outputs["score"]).ravel() for x in (old, new) if "score" in x.outputs)
        if a.size != b.size or a.size < 2 or not np.ptp(a):
            return None
        return spearman(a, b) or 0.0


FACET = PairRequests()
