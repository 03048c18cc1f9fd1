"""The trained ranker as the train stage leaves it: `model.json` and `model.safetensors`, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from reshelve.errors import DataError
from reshelve.files import whole
from reshelve.model.description import ModelForm, read_form, write_form
from reshelve.model.encoders.base import Encoder
from reshelve.model.encoders.registry import encoder_for

Array = np.ndarray
SITES = ("qkv", "attention_output", "intermediate", "output")
"""The matrix products of a layer, in the order that the graph runs them."""


@dataclass(frozen=True)
class TrainedModel:
    """The model's form and its float32 tensors, by their name in `model.safetensors`."""

    document: ModelForm
    tensors: dict[str, Array]

    @classmethod
    def load(cls, directory: Path) -> TrainedModel:
        """Read `model.json` and `model.safetensors`. Raises DataError where they do not fit each other."""
        document = read_form(directory)
        tensors = {
            name: np.ascontiguousarray(t, np.float32)
            for name, t in load_file(directory / "model.safetensors").items()
        }
        model = cls(document, tensors)
        headless = document.items is not None or document.towers
        expected = set(model.sites()) if headless else {*model.sites(), "head"}
        for site in expected:
            model.dense(site)
        return model

    def save(self, directory: Path) -> None:
        """Write what `load` reads; `model.json` is last, and each file appears whole."""
        with whole(directory / "model.safetensors") as partial:
            save_file(self.tensors, partial)
        write_form(directory, self.document)

    @property
    def encoder(self) -> Encoder:
        """Its family. Raises DataError where it is of none that is known."""
        return encoder_for(self.document)

    def layer(self, number: int) -> str:
        """The beginning of all names in one of its layers."""
        return self.encoder.layer(number)

    def __getitem__(self, name: str) -> Array:
        """One tensor. Raises DataError that names what is missing."""
        if name not in self.tensors:
            raise DataError(
                f"model.safetensors has no tensor {name!r}", "expected the names the train stage writes"
            )
        return self.tensors[name]

    def sites(self) -> list[str]:
        """Names of the matrix products, in the order the graph runs them."""
        found = [
            part
            for n in range(self.document.architecture.num_hidden_layers)
            for name in SITES
            for part in self.parts(f"{self.layer(n)}.{name}")
        ]
        softmax = self.document.items is not None and self.document.vector_size is None
        return [*found, "hidden", "items"] if softmax else found

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
        return list(self.encoder.weight_names(name, layer)) if name in SITES else [site]

    def _linear(self, path: str) -> tuple[Array, Array]:
        return np.ascontiguousarray(self[f"{path}.weight"].T), self[f"{path}.bias"]
