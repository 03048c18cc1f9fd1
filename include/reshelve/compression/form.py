"""`compression:` of a ranker file: the steps that make a version cheaper to serve, in the order they are tried."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from reshelve.forms import Form, Share, misfit

Product = Literal["qkv", "attention_output", "intermediate", "output"]


class Distil(Form):
    """Train a copy with fewer layers on what the night's own model says of its own training examples."""

    step: Literal["distil"] = "distil"
    layers: int = Field(ge=1, le=96, description="Layers of the copy, spread evenly over the model's.")
    epochs: float = Field(1.0, gt=0, le=100, description="Passes over the training examples.")
    teacher_share: Share = Field(
        0.8, description="Share of the loss that is the model's scores; the rest is what was chosen."
    )
    max_minutes: float = Field(
        10, gt=0, le=1440, description="The copy's training stops after so many minutes."
    )


class Prune(Form):
    """Remove attention heads and feed-forward neurons that add least on training examples; matrices become smaller."""

    step: Literal["prune"] = "prune"
    heads: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each layer's heads removed."
    )
    feed_forward: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25, description="Share of each layer's feed-forward neurons removed."
    )

    @model_validator(mode="after")
    def _removes_something(self) -> Prune:
        if not self.heads and not self.feed_forward:
            raise misfit("expected a share above 0 of heads or of feed_forward", "feed_forward")
        return self


class LowRank(Form):
    """Replace a product's matrix by two thin ones, the best of that rank for the activations of training examples."""

    step: Literal["low_rank"] = "low_rank"
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="Rank kept, as a share of the full one; it saves work below about a half."
    )
    products: tuple[Product, ...] = Field(
        ("intermediate", "output"), min_length=1, description="Which products of a layer."
    )


class Int8(Form):
    """Eight-bit products and word embeddings, with SmoothQuant."""

    step: Literal["int8"] = "int8"
    mode: Literal["static", "dynamic"] = Field(
        "static", description="static: ranges of activations from training examples. dynamic: of each batch."
    )
    alphas: tuple[Share, ...] = Field(
        (0.5, 0.7, 0.85), min_length=1, description="SmoothQuant strengths tried on validation examples."
    )
    per_channel: bool = Field(True, description="A range for each column of a weight; false: one for all.")
    embeddings: bool = Field(True, description="Word embeddings in eight bits too.")


class Bf16(Form):
    """Products and word embeddings in bfloat16: half the bytes; faster only where the processor has it."""

    step: Literal["bf16"] = "bf16"


Step = Annotated[
    Annotated[Distil | Prune | LowRank | Int8 | Bf16, Field(discriminator="step")],
    # `- int8` is short for `- step: int8` with its defaults.
    BeforeValidator(lambda value: {"step": value} if isinstance(value, str) else value),
]


class Compression(Form):
    """Steps that make the version cheaper to serve."""

    steps: tuple[Step, ...] = Field(
        (Int8(),),  # type: ignore[call-arg]
        description="In this order, each a name or a mapping with `step` and its values (distil, prune, low_rank, int8, bf16: "
        "see how-to/compress). A step stays only where the packaged bytes are measured faster at equal quality.",
        examples=[["int8"], [{"step": "distil", "layers": 3}, "int8"]],
    )
    calibration_examples: int = Field(256, ge=8, description="Training examples that a step looks at.")
    min_agreement: Share = Field(
        0.95, description="int8, bf16: least Spearman correlation with the scores before the step."
    )
    tolerance: Share = Field(
        0.01,
        description="distil, prune, low_rank: dropped where gates.metric may have fallen by more than this on the held-out "
        "questions (95 % interval, paired); int8 and bf16 are where it has surely fallen.",
    )

    @property
    def said(self) -> str:
        """The steps' names, for people."""
        return ", ".join(step.step for step in self.steps) or "none"

    @field_validator("steps")
    @classmethod
    def _rounding_is_last(cls, steps: tuple[Any, ...]) -> tuple[Any, ...]:
        rounding = [place for place, step in enumerate(steps) if step.step in ("int8", "bf16")]
        if rounding and rounding != [len(steps) - 1]:
            raise ValueError(
                "int8 or bf16 comes last, and only one of them: the other steps need float weights"
            )
        names = [step.step for step in steps]
        if "distil" in names[1:]:
            raise ValueError("distil comes first: the copy is trained from the model as it was trained")
        if len(set(names)) < len(names):
            raise ValueError("expected each kind of step once")
        return steps
