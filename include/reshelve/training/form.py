"""The form of a ranker (`model.json`) and the sizes of its encoder, readable without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pydantic

from reshelve.errors import DataError, MisfitError
from reshelve.rankers import Kind

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
    """`model.json`: everything but the weights. `items` is the size of the catalogue, null for pair.

    `features` are the columns that a pair model reads beside its texts.
    """

    kind: Kind
    pooling: Literal["cls", "mean"]
    max_length: int
    architecture: Architecture
    items: int | None = None
    features: tuple[str, ...] = ()
    towers: bool = False  # a pair's texts are read apart


def read_form(directory: Path) -> ModelForm:
    """`model.json` of `directory`. Raises DataError where it is missing or no form of ours."""
    try:
        return ModelForm.model_validate_json((directory / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory}: no readable model.json", str(error)) from error


def base_architecture(base: Path, max_length: int, layers: int | None = None) -> Architecture:
    """The sizes in the base model's `config.json`, with the lowest `layers` of its layers (None: all).

    Raises MisfitError for what is not supported.
    """
    try:
        config = dict(json.loads((base / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise MisfitError("model.base", f"{base / 'config.json'} cannot be read", str(error)) from error
    kind = config.get("model_type")
    if (
        kind != "bert"
        or config.get("position_embedding_type", "absolute") != "absolute"
        or config.get("is_decoder")
    ):
        raise MisfitError("model.base", f"{kind!r} models are not supported", f"supported: {_SUPPORTED}")
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
        raise MisfitError(
            "model.base", f"{base / 'config.json'} is no BERT configuration", problems
        ) from error
    if max_length > found.max_position_embeddings:
        raise MisfitError(
            "model.max_length",
            f"{max_length} is more than the base model's {found.max_position_embeddings} positions",
        )
    if layers is None:
        return found
    if layers > found.num_hidden_layers:
        raise MisfitError(
            "model.layers", f"{layers} is more than the base model's {found.num_hidden_layers} layers"
        )
    return found.model_copy(update={"num_hidden_layers": layers})
