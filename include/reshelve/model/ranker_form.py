"""The form of a ranker's model on a base: the one place where a ModelForm is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pydantic

from reshelve.config.ranker import Model
from reshelve.errors import MisfitError
from reshelve.model.base_home import BASE
from reshelve.model.description import Architecture, ModelForm
from reshelve.model.encoders.base import Encoder
from reshelve.model.encoders.registry import ENCODERS, known_encoders


def ranker_form(
    base: Path,
    *,
    kind: str,
    pooling: Literal["cls", "mean"],
    max_length: int,
    layers: int | None = None,
    items: int | None = None,
    features: tuple[str, ...] = (),
    towers: bool = False,
    vector_size: int | None = None,
    index_size: int | None = None,
) -> ModelForm:
    """What model.json will say of such a ranker on the base in that directory; `items` of the catalogue, None of a kind that does not score it.

    Raises MisfitError for what is not supported.
    """
    return ModelForm(
        kind=kind,
        encoder=encoder_of(base_config(base)).name,
        pooling=pooling,
        max_length=max_length,
        architecture=base_architecture(base, max_length, layers),
        items=items,
        features=features,
        towers=towers,
        vector_size=vector_size,
        index_size=index_size,
    )


def form_of(
    base: Path, kind: str, model: Model, *, items: int | None = None, features: tuple[str, ...] = ()
) -> ModelForm:
    """The same from a ranker file's `model`."""
    return ranker_form(
        base,
        kind=kind,
        pooling=model.pooling,
        max_length=model.max_length,
        layers=model.layers,
        items=items,
        features=features,
        towers=model.towers,
        vector_size=model.title_vector,
        index_size=model.cut_vector,
    )


def base_config(base: Path) -> dict[str, Any]:
    """A base's config.json. Raises MisfitError where it cannot be read."""
    try:
        return dict(json.loads((base / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise MisfitError(BASE, f"{base / 'config.json'} cannot be read", str(error)) from error


def base_pad_id(base: Path) -> int:
    """The token with which a base's batches are filled. Raises MisfitError for what is not supported."""
    config = base_config(base)
    encoder = encoder_of(config)
    return encoder.pad_id(encoder.architecture(config))


def encoder_of(config: dict[str, Any]) -> Encoder:
    """The family that a base's config.json names. Raises MisfitError where there is none of it."""
    name = config.get("model_type")
    if name not in ENCODERS:
        raise MisfitError(BASE, f"{name!r} models are not supported", f"supported: {known_encoders()}")
    return ENCODERS[name]


def base_architecture(base: Path, max_length: int, layers: int | None = None) -> Architecture:
    """The sizes in the base's config.json, with the lowest `layers` of its layers (None: all).

    Raises MisfitError for what is not supported.
    """
    config = base_config(base)
    encoder = encoder_of(config)
    try:
        found = encoder.architecture(config)
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise MisfitError(
            BASE, f"{base / 'config.json'} is not a configuration of a {encoder.name} model", problems
        ) from error
    if max_length > encoder.longest_text(found):
        raise MisfitError(
            "model.max_length",
            f"{max_length} is more than the base model's {encoder.longest_text(found)} positions",
        )
    if layers is None:
        return found
    if layers > found.num_hidden_layers:
        raise MisfitError(
            "model.layers", f"{layers} is more than the base model's {found.num_hidden_layers} layers"
        )
    return found.model_copy(update={"num_hidden_layers": layers})
