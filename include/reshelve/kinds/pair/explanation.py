"""How the score of a pair is explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reshelve.config.ranker import Ranker
from reshelve.kind import Explanation, Prediction


class PairExplanation(Explanation):
    """One logit a pair; the answer is the pair itself, and its question is its group."""

    score = "log odds of the pair"

    def left_out(self, ranker: Ranker) -> str:
        return "Features other than the texts are kept fixed." if ranker.examples.features else ""

    def predictions(self, logits: Tensor, known: Any, places: np.ndarray) -> Iterator[Prediction]:
        chances = torch.sigmoid(logits).tolist()
        for place, chance in zip(places.tolist(), chances, strict=True):
            yield Prediction(chance, place, place, int(known.groups[place]), bool(known.labels[place] > 0.5))

    def scores(self, logits: Tensor) -> Tensor:
        return logits

    def target(self, answer: int) -> int | None:
        return None

    def named(self, answer: int, titles: Sequence[str], right_text: str) -> str:
        return right_text


FACET = PairExplanation()
