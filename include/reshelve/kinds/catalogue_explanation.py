"""How a prediction over the catalogue is explained: the likeliest item, by the log of its probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from reshelve.config.ranker import Ranker
from reshelve.kind import Explanation, Prediction


class CatalogueExplanation(Explanation):
    """One softmax over the catalogue for each text. `caveat`: what of a version the trained model is not."""

    score = "log probability of the first item"

    def __init__(self, caveat: str = "") -> None:
        self._caveat = caveat

    def left_out(self, ranker: Ranker) -> str:
        return self._caveat

    def predictions(self, logits: Tensor, known: Any, places: np.ndarray) -> Iterator[Prediction]:
        chances, answers = torch.softmax(logits, dim=-1).max(dim=-1)
        for place, answer, chance in zip(places.tolist(), answers.tolist(), chances.tolist(), strict=True):
            came_true = bool((known.targets_of(place) == answer).any())
            yield Prediction(chance, place, answer, about=answer, came_true=came_true)

    def scores(self, logits: Tensor) -> Tensor:
        return F.log_softmax(logits, dim=-1)

    def target(self, answer: int) -> int | None:
        return answer

    def named(self, answer: int, titles: Sequence[str], right_text: str) -> str:
        return titles[answer]
