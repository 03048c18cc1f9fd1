"""What a model is (`model.json`), in one class each: read by training, export, compression and serving, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic
from pydantic import Field

from reshelve.config.kind_names import KindName
from reshelve.errors import DataError
from reshelve.files import write_whole

FILE = "model.json"
MOST_SCALE = 100.0
"""Nats that a cosine of 1 may be worth, where items are scored by the vectors of their titles."""


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")


class Architecture(_Frozen):
    """The encoder's sizes, by Hugging Face's names in `config.json`."""

    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(512, gt=0)
    type_vocab_size: int = Field(2, ge=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    hidden_act: str = "gelu"
    pad_token_id: int = Field(0, ge=0)
    head_width: int | None = Field(
        None, gt=0
    )  # where heads have been removed: the others are as wide as before

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.hidden_size // self.num_attention_heads


class ModelForm(_Frozen):
    """`model.json`: everything but the weights. `items` is the size of the catalogue, None for pair.

    `encoder` names one of `model/encoders/`; `features` are the columns that a pair model reads beside its texts.
    """

    kind: KindName
    encoder: str = "bert"
    pooling: Literal["cls", "mean"]
    max_length: int = Field(ge=8)
    architecture: Architecture
    items: int | None = None
    features: tuple[str, ...] = ()
    towers: bool = False  # a pair's texts are read apart
    vector_size: int | None = Field(None, gt=0)  # of titles, where items are scored by them
    index_size: int | None = Field(
        None, gt=0
    )  # to which they are cut for a search engine; training teaches it, too


def read_form(directory: Path) -> ModelForm:
    """`model.json` of `directory`. Raises DataError where it is missing or no form of ours."""
    try:
        return ModelForm.model_validate_json((directory / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory}: no readable {FILE}", str(error)) from error


def write_form(directory: Path, form: ModelForm) -> None:
    """Write what `read_form` reads; what is None is left out."""
    write_whole(directory / FILE, form.model_dump_json(indent=1, exclude_none=True))
