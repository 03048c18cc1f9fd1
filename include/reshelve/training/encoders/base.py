"""What training asks of an encoder in torch."""

from __future__ import annotations

from torch import Tensor, nn


class TorchEncoder(nn.Module):
    """An encoder made by (encoder, architecture), with random weights; its tensors are saved as `encoder.…`.

    B texts of T tokens, hidden size H. `mask` is 1 for tokens and 0 for padding; `types` are the segments, None for single texts.
    """

    def states(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Token ids [B, T] → the last states of all tokens [B, T, H]."""
        raise NotImplementedError

    def first_state(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Token ids [B, T] → the last state of each text's first token [B, H]; faster where an encoder can."""
        return self.states(ids, mask, types)[:, 0]

    @property
    def words(self) -> nn.Embedding:
        """The word embeddings: what adversarial training moves, and of which a night trains the rows in use."""
        raise NotImplementedError

    def replace_words(self, table: nn.Embedding) -> None:
        """Read another table of them."""
        raise NotImplementedError

    @property
    def embedded(self) -> nn.Module:
        """The module whose output is the first layer's input: what attributions are of."""
        raise NotImplementedError
