"""transformers' BERT, without dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from reshelve.errors import DataError
from reshelve.model.description import Architecture
from reshelve.model.encoders.base import Encoder
from reshelve.training.attention import attend, register
from reshelve.training.encoders.base import TorchEncoder


class BertTorch(BertModel, TorchEncoder):
    """A night sees each example about once, so nothing is dropped, and attention keeps its fast path on a CPU."""

    def __init__(self, encoder: Encoder, shape: Architecture) -> None:
        if shape.head_width is not None:
            raise DataError(
                "a model without some of its heads cannot be trained", "prune comes after training"
            )
        sizes = shape.model_dump(exclude={"head_width", "pad_token_id"})
        config = BertConfig(
            **sizes,
            pad_token_id=encoder.pad_id(shape),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        config._attn_implementation = register()
        super().__init__(config, add_pooling_layer=False)
        self._reads_types = encoder.token_types
        self._first_position = encoder.first_position(shape)

    def states(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """[B, T] → [B, T, H]."""
        found: Tensor = self(attention_mask=mask, **self._tokens(ids, types)).last_hidden_state
        return found

    def first_state(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """[B, T] → [B, H].

        The last layer is worked out for the first token alone: keys and values of the others are all that it reads of them,
        which spares most of one layer in six (docs/decisions/0084).
        """
        before = self.encoder.layer[:-1]
        last: Any = self.encoder.layer[-1]
        states = self.embeddings(**self._tokens(ids, types))
        allowed: Tensor | None = mask.bool()[:, None, None, :]  # of every head and every reading token
        if mask.device.type == "cpu" and bool(mask.all()):
            allowed = None  # asking an accelerator would wait for it
        for layer in before:
            states = layer(states, allowed)
        attention, first = last.attention.self, states[:, :1]

        def heads(values: Tensor) -> Tensor:
            return values.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

        read = attend(
            heads(attention.query(first)),
            heads(attention.key(states)),
            heads(attention.value(states)),
            allowed,
            attention.scaling,
        )
        mixed = last.attention.output(read.transpose(1, 2).flatten(2), first)
        state: Tensor = last.feed_forward_chunk(mixed)[:, 0]
        return state

    @property
    def words(self) -> nn.Embedding:
        """The word embeddings."""
        table: nn.Embedding = self.embeddings.word_embeddings
        return table

    def replace_words(self, table: nn.Embedding) -> None:
        """Read another table of them."""
        self.embeddings.word_embeddings = table

    @property
    def embedded(self) -> nn.Module:
        """The sum of word, position and type, normalised."""
        module: nn.Module = self.embeddings
        return module

    def _tokens(self, ids: Tensor, types: Tensor | None) -> dict[str, Any]:
        """What the embeddings read. Positions from 0 are transformers' own."""
        places = None
        if self._first_position:
            places = torch.arange(ids.shape[1], device=ids.device)[None] + self._first_position
        return {
            "input_ids": ids,
            "token_type_ids": types if self._reads_types else None,
            "position_ids": places,
        }
