"""Only the tokens that the examples hold are trained: the other rows of the embedding would only be carried along.

Half of a small encoder is its word embedding, and a night's texts use a tenth of its rows. The others have no gradient, yet
they would be stepped over, summed over all processes and saved at every checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reshelve.training.batches import Examples
from reshelve.training.model import RankerModel

TABLE = "encoder.embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Vocabulary:
    """The base's tokens that are in use, ascending; token 0, which pads, always is."""

    used: np.ndarray

    @classmethod
    def of(cls, *files: Examples) -> Vocabulary:
        """Every token of the examples."""
        return cls(np.unique(np.concatenate([[0], *(examples.tokens for examples in files)])))

    def renumber(self, examples: Examples) -> None:
        """Name the tokens by their place among those in use."""
        examples.tokens = np.searchsorted(self.used, examples.tokens)

    def shrink(self, model: RankerModel) -> Tensor:
        """Leave only the rows in use in the model; gives the whole table, for `whole`."""
        table: Tensor = model.encoder.embeddings.word_embeddings.weight.detach()
        rows = table[torch.from_numpy(self.used)].clone()
        model.encoder.embeddings.word_embeddings = nn.Embedding.from_pretrained(
            rows, freeze=False, padding_idx=0
        )
        return table

    def whole(self, weights: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
        """`weights` with the rows in use put back among the others."""
        table = table.clone()
        table[torch.from_numpy(self.used)] = weights[TABLE].to(table.device, table.dtype)
        return {**weights, TABLE: table}
