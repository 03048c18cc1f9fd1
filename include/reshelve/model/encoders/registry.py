"""The encoders that there are, by `model_type` in a base's config.json."""

from __future__ import annotations

from reshelve.errors import DataError
from reshelve.model.description import ModelForm
from reshelve.model.encoders.base import Encoder
from reshelve.model.encoders.bert import Bert

ENCODERS: dict[str, Encoder] = {encoder.name: encoder for encoder in (Bert(),)}


def known_encoders() -> str:
    """All of them, for people."""
    return "; ".join(encoder.said for encoder in ENCODERS.values())


def encoder_for(form: ModelForm) -> Encoder:
    """The family that a model.json names. Raises DataError where there is none, or it has not got the form's activation."""
    if form.encoder not in ENCODERS:
        raise DataError(f"model.json: encoder {form.encoder!r} is not known", f"known: {known_encoders()}")
    found, activation = ENCODERS[form.encoder], form.architecture.hidden_act
    if activation not in found.activations:
        expected = " or ".join(sorted(found.activations))
        raise DataError(f"model.json: hidden_act {activation}, expected {expected}", f"encoder {found.name}")
    return found
