"""What each stage answers: its `result.json`. Nights of other code may have said less or more: both load."""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from reshelve.errors import DataError
from reshelve.store.manifest import FreshCatalogue


class StageResult(BaseModel):
    """What every stage's result has, and what a stage says beside it. Keys that are not declared stay in it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str = ""  # who did it
    seconds: float = 0.0
    identity: str = ""  # `StageIdentity.digest`; empty where the result is its run's alone


class ExamplesResult(StageResult):
    """Of `examples`: counts by part, the days by part, and what they were read from."""

    train: int | None = None
    items: int | None = None
    graph_bytes: int | None = None  # at most, of the float version; None: not foretold
    served_bytes: int | None = None  # the same at the precision of the compression steps
    items_that_fit: int | None = None  # a catalogue like this may have so many
    partitions: int | None = None
    train_partitions: tuple[str, ...] = ()  # the first and the last
    validation_partitions: tuple[str, ...] = ()
    holdout_partitions: tuple[str, ...] = ()
    holdout_begins: date | None = None  # what a ranker may know was before this day
    verdicts: dict[str, str] = {}  # partition → digest of its verdict
    base: dict[str, Any] | None = None
    forgotten: str = ""  # whom the source had forgotten before a row was read
    left_out: tuple[str, ...] = ()  # the same, by request
    refreshed: FreshCatalogue | None = None  # of a run that trains nothing

    @property
    def begins(self) -> date:
        """The day that the held-out part begins. Raises DataError where the result does not say it."""
        if self.holdout_begins is None:
            raise DataError(f"{self.run}: stage examples left no holdout_begins", "expected a day")
        return self.holdout_begins


class TuneResult(StageResult):
    """Of `tune`: the best values, empty where nothing was tuned, and its trials."""

    best: dict[str, Any] = {}
    loss: float | None = None
    trials: int = 0
    failed: int = 0
    stopped: int = 0
    ended: str = ""
    trial_epochs: float = 0.0
    history: tuple[dict[str, Any], ...] = ()


class TrainResult(StageResult):
    """Of `train`: losses and speed, the values that it trained with, and where it started."""

    loss: float | None = None
    steps: int | None = None
    examples: int | None = None  # seen, over all epochs
    training_seconds: float | None = None
    values: dict[str, Any] = {}
    base: dict[str, Any] | None = None
    start: dict[str, Any] | None = None


class BlendResult(StageResult):
    """Of `blend`: whether the transformer is in it, and the losses with it and without."""

    encoder: bool | None = None
    losses: dict[str, float] = {}
    questions: int | None = None
    privacy: dict[str, Any] | None = None  # what counts with noise cost a customer; None where they are exact


class CompressResult(StageResult):
    """Of `compress`: each step with its figures."""

    steps: tuple[dict[str, Any], ...] = ()
    precision: str | None = None


class PackageResult(StageResult):
    """Of `package`: the SavedModel's size and speed."""

    bytes: int | None = None
    precision: str | None = None
    candidates: dict[str, Any] | None = None
    signature: Any = None


class GateResult(StageResult):
    """Of `gate`; `store.manifest.GateVerdict` reads the rest of it."""

    verdict: str
    reasons: tuple[str, ...] = ()


class PublishResult(StageResult):
    """Of `publish`."""

    published: bool
    version: int | None = None
    verdict: str = ""
