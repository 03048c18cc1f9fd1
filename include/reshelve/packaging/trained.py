"""The trained ranker as the train stage leaves it: `model.json` and `model.safetensors`, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load_file, save_file

from reshelve.errors import DataError
from reshelve.rankers import Kind

Array = np.ndarray


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Architecture(_Document):
    """The shape of a BERT encoder, in Hugging Face's words."""

    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu"] = "gelu"
    head_width: int | None = None  # where heads have been removed: the others are as wide as before

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.hidden_size // self.num_attention_heads


class ModelDocument(_Document):
    """`model.json`."""

    kind: Kind
    pooling: Literal["cls", "mean"]
    max_length: int = Field(ge=8)
    architecture: Architecture
    items: int | None = None
    features: tuple[str, ...] = ()
    towers: bool = False


@dataclass(frozen=True)
class TrainedModel:
    """The model's form and its float32 tensors, by their name in `model.safetensors`."""

    document: ModelDocument
    tensors: dict[str, Array]

    @classmethod
    def load(cls, directory: Path) -> TrainedModel:
        """Read `model.json` and `model.safetensors`. Raises DataError where they do not fit each other."""
        try:
            document = ModelDocument.model_validate_json((directory / "model.json").read_bytes())
        except ValidationError as error:
            raise DataError(
                f"{directory / 'model.json'}: not a model this code can package", str(error)
            ) from error
        tensors = {
            name: np.ascontiguousarray(t, np.float32)
            for name, t in load_file(directory / "model.safetensors").items()
        }
        model = cls(document, tensors)
        headless = document.kind.over_catalogue or document.towers
        expected = set(model.sites()) if headless else {*model.sites(), "head"}
        for site in expected:
            model.dense(site)
        return model

    def save(self, directory: Path) -> None:
        """Write what `load` reads; `model.json` is last, and each file appears whole."""
        partial = directory / ".model.safetensors.partial"
        save_file(self.tensors, partial)
        partial.rename(directory / "model.safetensors")
        partial = directory / ".model.json.partial"
        partial.write_text(self.document.model_dump_json(indent=1, exclude_none=True))
        partial.rename(directory / "model.json")

    def __getitem__(self, name: str) -> Array:
        """One tensor. Raises DataError that names what is missing."""
        if name not in self.tensors:
            raise DataError(
                f"model.safetensors has no tensor {name!r}", "expected the names the train stage writes"
            )
        return self.tensors[name]

    def sites(self) -> list[str]:
        """Names of the matrix products, in the order the graph runs them."""
        names = ("qkv", "attention_output", "intermediate", "output")
        found = [
            part
            for n in range(self.document.architecture.num_hidden_layers)
            for name in names
            for part in self.parts(f"encoder.encoder.layer.{n}.{name}")
        ]
        return [*found, "hidden", "items"] if self.document.kind.over_catalogue else found

    def parts(self, site: str) -> list[str]:
        """The products that `site` is made of: itself, or the two thin ones of a low-rank factorisation."""
        thin = [f"{site}.down", f"{site}.up"]
        return thin if f"{thin[0]}.weight" in self.tensors else [site]

    def dense(self, site: str) -> tuple[Array, Array]:
        """(weight [inputs, outputs], bias [outputs]) of one matrix product.

        Query, key and value are one product.
        """
        names = self.names(site)
        if len(names) == 1:
            return self._linear(names[0])
        parts = [self._linear(name) for name in names]
        return np.concatenate([w for w, _ in parts], axis=1), np.concatenate([b for _, b in parts])

    def names(self, site: str) -> list[str]:
        """The layers in `model.safetensors` that a matrix product is made of."""
        layer, _, name = site.rpartition(".")
        if name == "qkv":
            return [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        found = {
            "attention_output": f"{layer}.attention.output.dense",
            "intermediate": f"{layer}.intermediate.dense",
            "output": f"{layer}.output.dense",
        }
        return [found.get(name, site)]

    def _linear(self, path: str) -> tuple[Array, Array]:
        return np.ascontiguousarray(self[f"{path}.weight"].T), self[f"{path}.bias"]

    def positions(self) -> Array:
        """Position embeddings with token type 0 added: [max_length, hidden]."""
        table = self["encoder.embeddings.position_embeddings.weight"][: self.document.max_length]
        return table + self["encoder.embeddings.token_type_embeddings.weight"][0]

    def second_type(self) -> Array:
        """What token type 1 adds beyond type 0: [hidden]."""
        types = self["encoder.embeddings.token_type_embeddings.weight"]
        return types[1] - types[0]
