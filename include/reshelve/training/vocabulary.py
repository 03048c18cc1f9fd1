"""Only the tokens that the examples hold are trained: the other rows of the embedding would only be carried along.

Half of a small encoder is its word embedding, and a night's texts use a tenth of its rows. The others have no gradient, yet
they would be stepped over, summed over all processes and saved at every checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from reshelve.training.model import RankerModel


class TokenFile(Protocol):
    """Texts as tokens, one after another, and the one that fills a batch."""

    tokens: np.ndarray
    pad_id: int


@dataclass(frozen=True)
class Vocabulary:
    """The base's tokens that are in use, ascending; the one that pads always is, at place `pad_id`."""

    used: np.ndarray
    pad_id: int

    @classmethod
    def of(cls, *files: TokenFile) -> Vocabulary:
        """Every token of the examples, and of titles that are read beside them."""
        pads = [examples.pad_id for examples in files]
        used = np.unique(np.concatenate([pads, *(examples.tokens for examples in files)]))
        return cls(used, int(np.searchsorted(used, pads[0])))

    @classmethod
    def renumbered(cls, *files: TokenFile) -> Vocabulary:
        """That of all, each of which names its tokens by their place in it from now on."""
        found = cls.of(*files)
        for file in files:
            found.renumber(file)
        return found

    def renumber(self, examples: TokenFile) -> None:
        """Name the tokens by their place among those in use."""
        examples.tokens, examples.pad_id = np.searchsorted(self.used, examples.tokens), self.pad_id

    def shrink(self, model: RankerModel) -> Tensor:
        """Leave only the rows in use in the model; gives the whole table, for `whole`."""
        table = model.encoder.words.weight.detach()
        rows = table[torch.from_numpy(self.used)].clone()
        model.encoder.replace_words(nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=self.pad_id))
        return table

    def whole(self, model: RankerModel, weights: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
        """The `weights` of `model` with the rows in use put back among the others."""
        name, table = f"{model.family.words}.weight", table.clone()
        table[torch.from_numpy(self.used)] = weights[name].to(table.device, table.dtype)
        return {**weights, name: table}
