"""`compression:` of a ranker file: the steps that make a version cheaper to serve, in the order they are tried."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from reshelve.config.yaml_models import Form, Share, misfit

Product = Literal["qkv", "attention_output", "intermediate", "output"]


Position = Literal["first", "between", "last"]
"""Where a step may stand among the others."""
Criterion = Literal["quality", "agreement"]
"""What a step must not lose: gates.metric on held-out questions, or agreement with the scores before it."""


class Reshaping(Form):
    """A step that makes another model."""

    position: ClassVar[Position] = "between"
    criterion: ClassVar[Criterion] = "quality"
    precision: ClassVar[str | None] = None


class Rounding(Form):
    """A step that keeps the model's numbers in fewer bits; the others need float weights, so it is the last."""

    position: ClassVar[Position] = "last"
    criterion: ClassVar[Criterion] = "agreement"
    precision: ClassVar[str | None]


class Distil(Reshaping):
    """Train a copy with fewer layers to imitate the night's own model on its training examples."""

    position: ClassVar[Position] = "first"  # the copy is trained from the model as it was trained
    step: Literal["distil"] = "distil"
    layers: int = Field(
        ge=1, le=96, description="Layers of the copy, taken at even intervals from the model's."
    )
    epochs: float = Field(1.0, gt=0, le=100, description="Passes over the training examples.")
    teacher_share: Share = Field(
        0.8, description="Share of the loss from the model's scores; the rest is from the labels."
    )
    max_minutes: float = Field(
        10, gt=0, le=1440, description="The copy's training stops after this many minutes."
    )


class Prune(Reshaping):
    """Remove the attention heads and feed-forward neurons that contribute least on training examples, which makes the matrices smaller."""

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


class LowRank(Reshaping):
    """Replace a weight matrix by two thin ones: the best approximation of that rank for the activations of training examples."""

    step: Literal["low_rank"] = "low_rank"
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="Rank kept, as a share of the full rank; it saves work below about a half."
    )
    products: tuple[Product, ...] = Field(
        ("intermediate", "output"), min_length=1, description="Which matrices of a layer."
    )


class Int8Step(Rounding):
    """Eight-bit matrix products and word embeddings, with SmoothQuant."""

    precision: ClassVar[str | None] = "int8"
    step: Literal["int8"] = "int8"
    mode: Literal["static", "dynamic"] = Field(
        "static", description="static: activation ranges from training examples. dynamic: from each batch."
    )
    alphas: tuple[Share, ...] = Field(
        (0.5, 0.7, 0.85), min_length=1, description="SmoothQuant strengths tried on validation examples."
    )
    per_channel: bool = Field(
        True, description="Separate ranges for each column of a weight; false: one for all."
    )
    embeddings: bool = Field(True, description="Also quantize word embeddings.")


class Bf16Step(Rounding):
    """Matrix products and word embeddings in bfloat16: half the bytes; faster only on processors that support it."""

    precision: ClassVar[str | None] = "bfloat16"
    step: Literal["bf16"] = "bf16"


Step = Annotated[
    Annotated[Distil | Prune | LowRank | Int8Step | Bf16Step, Field(discriminator="step")],
    # `- int8` is short for `- step: int8` with its defaults.
    BeforeValidator(lambda value: {"step": value} if isinstance(value, str) else value),
]


class Compression(Form):
    """Steps that make the version cheaper to serve."""

    steps: tuple[Step, ...] = Field(
        (Int8Step(),),  # type: ignore[call-arg]
        description="The steps, in order, each a name or a mapping with `step` and its options (distil, prune, "
        "low_rank, int8, bf16: see how-to/compress). A step is kept only if the packaged version is "
        "measurably faster and as accurate.",
        examples=[["int8"], [{"step": "distil", "layers": 3}, "int8"]],
    )
    calibration_examples: int = Field(256, ge=8, description="Number of training examples a step uses.")
    min_agreement: Share = Field(
        0.95, description="int8, bf16: minimum Spearman correlation with the scores before the step."
    )
    tolerance: Share = Field(
        0.01,
        description="distil, prune, low_rank: dropped if gates.metric may have dropped by more than this on the "
        "held-out questions (95 % interval, paired). int8, bf16: dropped if it dropped significantly.",
    )

    @property
    def said(self) -> str:
        """The steps' names, for people."""
        return ", ".join(step.step for step in self.steps) or "none"

    @field_validator("steps")
    @classmethod
    def _each_in_its_place(cls, steps: tuple[Any, ...]) -> tuple[Any, ...]:
        if any(step.position == "last" for step in steps[:-1]):
            raise ValueError(
                "int8 or bf16 comes last, and only one of them: the other steps need float weights"
            )
        for late in (step for step in steps[1:] if step.position == "first"):
            raise ValueError(f"{late.step} comes first: the copy is trained from the model as it was trained")
        names = [step.step for step in steps]
        if len(set(names)) < len(names):
            raise ValueError("expected each kind of step once")
        return steps
