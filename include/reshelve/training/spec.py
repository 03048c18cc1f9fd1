"""What one training job is told: everything the workers need, as one JSON file beside their output."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from reshelve.config.kind_names import KindName
from reshelve.config.ranker import Model, Ranker, Training
from reshelve.config.yaml_models import Form
from reshelve.features.columns import feature_columns

# Names inside a job's directory. They begin with a dot, so they are never uploaded with a stage.
SPEC = ".spec.json"
PROGRESS = ".progress.json"
CHECKPOINT = ".checkpoint.safetensors"
RESULT = ".result.json"
ERROR = ".error.json"
LOCK = ".workers.lock"


class TrainingSpec(Form):
    """One training job: a night's training, or one trial of its tuning."""

    identity: str  # the run (and trial) it belongs to: a checkpoint of another identity is never resumed
    kind: KindName
    model: Model
    training: Training
    base: Path  # the resolved base model
    start: Path | None = None  # the champion's weights, where training starts from them and not from the base
    teacher: Path | None = None  # a larger model of the same night whose scores are learned
    teacher_share: float = 0.0  # of the loss
    start_version: int | None = None  # which champion
    features: tuple[str, ...] = ()  # columns beside the texts
    examples: Path  # the examples stage's directory
    output: Path  # model, curves, progress and checkpoint are written here
    budget_share: float = 1.0  # share of a full training's steps; the rate falls to 0 over these
    save: bool = True  # a trial needs no model and no first validation, only its loss

    def digest(self) -> str:
        """What a checkpoint must agree with: all but where files lie and how often or long to run."""
        document = self.model_dump_json(
            exclude={
                "base": True,
                "start": True,
                "teacher": True,
                "examples": True,
                "output": True,
                "training": {"max_minutes", "checkpoint_seconds"},
            }
        )
        return hashlib.sha256(document.encode()).hexdigest()[:16]


def training_spec(ranker: Ranker, **keywords: Any) -> TrainingSpec:
    """The job of `ranker`'s kind, model and training values."""
    return TrainingSpec(
        kind=ranker.kind,
        model=ranker.model,
        training=ranker.training,
        features=feature_columns(ranker.examples.features),
        **keywords,
    )
