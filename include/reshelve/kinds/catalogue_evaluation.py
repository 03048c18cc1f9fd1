"""How the kinds are asked and counted that order the whole catalogue for one text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reshelve.client.client import finite
from reshelve.evaluation.scoring import Served, ServedModel, text
from reshelve.examples.formats import HoldoutQuery
from reshelve.kind import Evaluation

_BATCH = 32  # texts per request


class CatalogueEvaluation(Evaluation):
    """The best of the catalogue, of which the first is a prediction."""

    whole_lists = False
    questions = 400

    def __init__(self, text: str) -> None:
        self._text = text  # the signature's name for what is asked

    def answers(self, served: ServedModel, queries: Sequence[HoldoutQuery]) -> Iterator[Served]:
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            inputs = {self._text: [query.text for query in batch]}
            items, scores = served.ask(inputs, ["item", "score"], len(batch))
            for row, row_scores in zip(items, scores, strict=True):
                yield [text(item) for item in row], row_scores.tolist(), finite(row_scores)
