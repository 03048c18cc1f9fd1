"""BERT (Devlin et al., 2019) with absolute positions, and what was made in its image, such as MiniLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reshelve.model.description import Architecture
from reshelve.model.encoders.base import Document, Encoder, Ids, Texts
from reshelve.model.encoders.wordpiece import CLS, SEP, tokenizer_problems

_OLD_NAMES = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
}  # of TensorFlow's time


class Bert(Encoder):
    """`[CLS] a [SEP]`, `[CLS] a [SEP] b [SEP]`; the sum of word, position and type is read."""

    name = "bert"
    said = "BERT encoders (model_type bert, absolute positions), such as MiniLM"
    torch = "reshelve.training.encoders.bert:BertTorch"
    graph = "reshelve.export.encoders.bert:BertGraph"
    tokenizer = "reshelve.export.tokenizer:GraphTokenizer"
    activations = frozenset({"gelu"})  # the exact one, which is how graph and quantized products write it
    adapted = ("query", "key", "value", "dense")
    words = "encoder.embeddings.word_embeddings"

    def architecture(self, config: Document) -> Architecture:
        return Architecture.model_validate(dict(config))

    def supports(self, config: Document, tokenizer: Document, texts: Texts) -> tuple[str, ...]:
        problems, ids = tokenizer_problems(tokenizer, self, pairs=texts is not Texts.ONE)
        return (
            *(f"tokenizer.json: {problem}" for problem in problems),
            *(f"config.json: {problem}" for problem in self._of_config(config, ids, texts)),
        )

    def _of_config(self, config: Document, ids: int, texts: Texts) -> Iterator[str]:
        shape = self.architecture(config)
        positions = config.get("position_embedding_type", "absolute")
        if positions != "absolute":
            yield f"position_embedding_type {positions}, expected absolute"
        if config.get("is_decoder"):
            yield "is_decoder, expected an encoder"
        if shape.hidden_act not in self.activations:
            yield f"hidden_act {shape.hidden_act}, expected {' or '.join(sorted(self.activations))}"
        if ids > shape.vocab_size:
            yield f"vocab_size {shape.vocab_size}, but the tokenizer's ids go to {ids - 1}: its embeddings were not resized"
        if self.token_types and texts is Texts.TOGETHER and shape.type_vocab_size < 2:
            yield f"type_vocab_size {shape.type_vocab_size}, but a pair needs two: read its texts apart (model.towers: true)"
        if shape.hidden_size % shape.num_attention_heads:
            yield f"hidden_size {shape.hidden_size} is no multiple of num_attention_heads {shape.num_attention_heads}"
        if config.get("pruned_heads"):
            yield "pruned_heads, expected all of them"

    def single(self, text: Ids, special: Mapping[str, int]) -> tuple[Ids, Ids]:
        ids = [special[CLS], *text, special[SEP]]
        return ids, [0] * len(ids)

    def pair(self, first: Ids, second: Ids, special: Mapping[str, int]) -> tuple[Ids, Ids]:
        (ids, segments), after = self.single(first, special), [*second, special[SEP]]
        return ids + after, segments + [1] * len(after)

    def layer(self, number: int | str) -> str:
        return f"encoder.encoder.layer.{number}"

    def weight_names(self, site: str, layer: str) -> tuple[str, ...]:
        if site == "qkv":
            return tuple(f"{layer}.attention.self.{part}" for part in ("query", "key", "value"))
        return (f"{layer}.{'attention.output' if site == 'attention_output' else site}.dense",)

    def own_name(self, name: str) -> str:
        name = name.removeprefix("bert.")
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        return name
