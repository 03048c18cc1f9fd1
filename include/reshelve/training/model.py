"""The ranker: a BERT encoder, one pooled vector, and a head that answers for its kind.

- `pair`: logit = head(pooled), one number per (left text, right text).
- `next_item`: logits = W·ReLU(h(pooled)) + b, one number per item of the catalogue.

On disk a model is `model.json` (its form) and `model.safetensors`; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from reshelve.errors import ConfigurationError, DataError
from reshelve.rankers import Kind

# How many nats one typical unit of text similarity is worth against log popularity before any training.
SIMILARITY_SCALE = 20.0
# Added to every item's count, so that an item without events still has a finite log popularity.
POPULARITY_PRIOR = 1.0

_SUPPORTED = "BERT encoders (model_type bert, absolute positions), such as MiniLM"


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")


class Architecture(_Frozen):
    """The encoder's sizes, by the names of Hugging Face's BertConfig."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str


class ModelForm(_Frozen):
    """`model.json`: everything but the weights. `items` is the size of the catalogue, null for pair."""

    kind: Kind
    pooling: Literal["cls", "mean"]
    max_length: int
    architecture: Architecture
    items: int | None = None


class RankerModel(nn.Module):
    """The network of one ranker, with random weights: see `load` and `initialise` for those that mean something."""

    def __init__(self, form: ModelForm) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        self.form = form
        width = form.architecture.hidden_size
        # Without dropout: a night sees each example about once, and attention keeps its fast path on a CPU.
        config = BertConfig(
            **form.architecture.model_dump(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        config._attn_implementation = "sdpa"
        self.encoder = BertModel(config, add_pooling_layer=False)
        if form.kind is Kind.PAIR:
            self.head = nn.Linear(width, 1)
        else:
            if not form.items:
                raise DataError("the catalogue is empty", "a next_item ranker needs items to choose from")
            self.hidden = nn.Linear(width, 2 * width)
            self.items = nn.Linear(2 * width, form.items)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Token ids [B, T] → logits [B] (pair) or [B, C] (next_item)."""
        pooled = self.pooled(input_ids, attention_mask, token_type_ids)
        if self.form.kind is Kind.PAIR:
            return self.head(pooled).squeeze(-1)
        return self.items(torch.relu(self.hidden(pooled)))

    def pooled(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Token ids [B, T] → one vector per text [B, H]: the first token's state, or the mean of the real tokens'."""
        states: Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        if self.form.pooling == "cls":
            return states[:, 0]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    @classmethod
    def load(cls, directory: Path) -> RankerModel:
        """The model saved in `directory`, in evaluation mode. Raises DataError where the files do not fit each other."""
        model = cls(read_form(directory))
        try:
            model.load_state_dict(load_file(directory / "model.safetensors"))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{directory}: model.safetensors does not fit model.json", str(error)) from error
        return model.eval()

    def save(self, directory: Path) -> None:
        """Write `model.safetensors` and, last, `model.json`; each appears whole."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        partial = directory / ".model.safetensors.partial"
        save_file(tensors, partial)
        partial.rename(directory / "model.safetensors")
        partial = directory / ".model.json.partial"
        partial.write_text(self.form.model_dump_json(indent=1))
        partial.rename(directory / "model.json")

    @classmethod
    def initialise(
        cls,
        base: Path,
        *,
        kind: Kind,
        pooling: Literal["cls", "mean"],
        max_length: int,
        layers: int | None = None,
        titles: Sequence[str] | None = None,
        events: Sequence[int] | None = None,
        seed: int = 17,
    ) -> RankerModel:
        """A ranker on the pretrained encoder in `base`, before any training.

        pair: a small random head. next_item: `titles` and `events` (counts) of the catalogue, in the order of its
        indices, make the logits at step 0 exactly `scale · pooled·E + log popularity`, where E are the normalised
        embeddings of the titles: hidden = [I; -I] and W = [E, -E], because relu(x) - relu(-x) = x.
        Raises ConfigurationError for an encoder that is no BERT.
        """
        form = ModelForm(
            kind=kind,
            pooling=pooling,
            max_length=max_length,
            architecture=base_architecture(base, max_length, layers),
            items=len(titles or ()) if kind is Kind.NEXT_ITEM else None,
        )
        torch.manual_seed(seed)
        model = cls(form)
        model.encoder.load_state_dict(_encoder_weights(base, set(model.encoder.state_dict())))
        model.eval()
        with torch.no_grad():
            if kind is Kind.PAIR:
                model.head.weight.normal_(std=0.02)
                model.head.bias.zero_()
            else:
                model._start_from_titles(base, list(titles or ()), list(events or ()))
        return model

    def _start_from_titles(self, base: Path, titles: list[str], events: list[int]) -> None:
        embedded = embed(self, base, titles)
        lengths = embedded.norm(dim=1, keepdim=True).clamp(min=1e-6)
        items = embedded / lengths
        width = items.shape[1]
        # Pooled states are not normalised; their typical length is taken out, so that a score is scale · cosine.
        items *= SIMILARITY_SCALE / lengths.mean()
        self.items.weight.copy_(torch.cat([items, -items], dim=1))
        counts = torch.tensor(events or [0] * len(titles), dtype=torch.float32) + POPULARITY_PRIOR
        self.items.bias.copy_(torch.log(counts / counts.sum()))
        identity = torch.eye(width)
        self.hidden.weight.copy_(torch.cat([identity, -identity]))
        self.hidden.bias.zero_()


def read_form(directory: Path) -> ModelForm:
    """`model.json` of `directory`. Raises DataError where it is missing or no form of ours."""
    try:
        return ModelForm.model_validate_json((directory / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory}: no readable model.json", str(error)) from error


def base_architecture(base: Path, max_length: int, layers: int | None = None) -> Architecture:
    """The sizes in the base model's `config.json`, with the lowest `layers` of its layers (None: all).

    Raises ConfigurationError for what is not supported.
    """
    config = json.loads((base / "config.json").read_text())
    kind = config.get("model_type")
    if (
        kind != "bert"
        or config.get("position_embedding_type", "absolute") != "absolute"
        or config.get("is_decoder")
    ):
        raise ConfigurationError(f"model.base: {kind!r} models are not supported", f"supported: {_SUPPORTED}")
    defaults = {
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
    }
    try:
        found = Architecture.model_validate({**defaults, **config})
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(
            f"model.base: {base / 'config.json'} is no BERT configuration", problems
        ) from error
    if max_length > found.max_position_embeddings:
        raise ConfigurationError(
            f"model.max_length: {max_length} is more than the base model's {found.max_position_embeddings} positions"
        )
    if layers is None:
        return found
    if layers > found.num_hidden_layers:
        raise ConfigurationError(
            f"model.layers: {layers} is more than the base model's {found.num_hidden_layers} layers"
        )
    return found.model_copy(update={"num_hidden_layers": layers})


def embed(model: RankerModel, base: Path, texts: Sequence[str], batch: int = 128) -> Tensor:
    """Pooled vectors [N, H] of `texts`, tokenised with the base model's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.form.max_length)
    tokens = [encoded.ids for encoded in tokenizer.encode_batch(list(texts))]
    vectors = torch.empty(len(tokens), model.form.architecture.hidden_size)
    order = sorted(
        range(len(tokens)), key=lambda index: len(tokens[index])
    )  # like lengths together: little padding
    with torch.no_grad():
        for chosen in _slices(order, batch):
            input_ids, mask = pad([tokens[index] for index in chosen])
            vectors[chosen] = model.pooled(input_ids, mask)
    return vectors


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ragged token ids → (ids [B, T], attention mask [B, T]), T being the longest row."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.as_tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask


def _slices(values: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _encoder_weights(base: Path, wanted: set[str]) -> dict[str, Tensor]:
    """The encoder's tensors out of the base's safetensors, whatever heads and prefixes they were saved with."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(base.glob("*.safetensors")):
        try:
            tensors.update(load_file(path))
        except (OSError, SafetensorError) as error:
            raise ConfigurationError(f"model.base: {path} is no safetensors file", str(error)) from error
    found = {name.removeprefix("bert."): value for name, value in tensors.items()}
    found = {  # the names of TensorFlow's time
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        ): value.float()
        for name, value in found.items()
    }
    missing = sorted(wanted - set(found))
    if missing:
        raise ConfigurationError(
            f"model.base: {base} lacks the encoder's weights",
            f"missing: {', '.join(missing[:3])} ({len(missing)} in all)",
        )
    return {name: found[name] for name in wanted}
