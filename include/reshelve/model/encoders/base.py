"""What is particular to one family of transformers: all that training, export and compression ask of it.

An encoder is described here without torch or TensorFlow. It names the classes that build it in either, which are imported
when the first model of its family is built.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

from reshelve.model.description import Architecture

Ids = list[int]
Document = Mapping[str, Any]  # a parsed JSON file


class Texts(StrEnum):
    """What a ranker gives its encoder to read."""

    ONE = "one text"
    TOGETHER = "two texts together"
    APART = "two texts apart"


class Encoder(ABC):
    """One family. It has no state: the sizes of a model are its Architecture, its weights are the model's own."""

    name: ClassVar[str]
    """`model_type` in config.json, and `encoder` in model.json."""
    said: ClassVar[str]
    """The family in words, for who names a base that is of none."""
    torch: ClassVar[str]
    """`module:Class`, called with (encoder, architecture): a reshelve.training.encoders.base.TorchEncoder."""
    graph: ClassVar[str]
    """`module:Class`, called with (trained model, layers): a reshelve.export.encoders.base.EncoderGraph."""
    tokenizer: ClassVar[str]
    """`module:Class`, called with (path of tokenizer.json, max_length): its tokenizer in the graph."""
    token_types: ClassVar[bool] = True
    """Whether it reads which of two texts a token is of; where not, only the tokens between them say so."""
    activations: ClassVar[frozenset[str]]
    """`hidden_act` that both builders know."""
    adapted: ClassVar[tuple[str, ...]]
    """The last names of its matrix products, beside which an adapter is trained."""
    words: ClassVar[str]
    """The word embeddings in model.safetensors, without `.weight`."""

    @abstractmethod
    def architecture(self, config: Document) -> Architecture:
        """Its sizes in a base's config.json. Raises ValueError where one is missing or is none."""

    @abstractmethod
    def supports(self, config: Document, tokenizer: Document, texts: Texts) -> tuple[str, ...]:
        """Why such a base cannot be packaged, each reason with the file it is about; empty where it can.

        Raises KeyError, TypeError or AttributeError for what is no tokenizer.json at all.
        """

    @abstractmethod
    def single(self, text: Ids, special: Mapping[str, int]) -> tuple[Ids, Ids]:
        """Token ids and segments of one text with its special tokens; `special`: the vocabulary's ids by name."""

    @abstractmethod
    def pair(self, first: Ids, second: Ids, special: Mapping[str, int]) -> tuple[Ids, Ids]:
        """The same of two texts; segments are 0 for what belongs to the first, 1 for the second."""

    @abstractmethod
    def layer(self, number: int | str) -> str:
        """The beginning of all names in one of its layers: `encoder.encoder.layer.0`."""

    @abstractmethod
    def weight_names(self, site: str, layer: str) -> Sequence[str]:
        """The products in model.safetensors that a site of a layer is made of, side by side.

        Sites: `qkv`, `attention_output`, `intermediate`, `output`.
        """

    @abstractmethod
    def own_name(self, name: str) -> str:
        """A tensor's name in a base's checkpoint → its name in the torch encoder, whatever head it was saved with."""

    def pad_id(self, shape: Architecture) -> int:
        """The token that fills a batch; nothing reads it."""
        return shape.pad_token_id

    def first_position(self, shape: Architecture) -> int:
        """The row of the position embeddings that the first token reads."""
        return 0

    def longest_text(self, shape: Architecture) -> int:
        """How many tokens it can read."""
        return shape.max_position_embeddings - self.first_position(shape)

    def build_torch(self, shape: Architecture) -> Any:
        """The encoder in torch with random weights."""
        return _named(self.torch)(self, shape)

    def build_graph(self, model: Any, layers: Any) -> Any:
        """A trained model's encoder as a TensorFlow graph, its products and embeddings by `layers`."""
        return _named(self.graph)(model, layers)

    def build_tokenizer(self, *arguments: Any) -> Any:
        """The tokenizer as a TensorFlow graph, from (path of tokenizer.json, max_length)."""
        return _named(self.tokenizer)(*arguments)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
