"""What a step may look at: training and validation examples; the held-out questions are the judge's alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reshelve.compression.calibration import calibrate
from reshelve.errors import DataError
from reshelve.export.batches import Encoded, batches, example_rows
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.model.int8 import ActivationRanges
from reshelve.model.trained import TrainedModel
from reshelve.progress import counted


@dataclass(frozen=True)
class Context:
    """A run's compress stage at work."""

    run: Run
    train: Path
    examples: Path
    scratch: Path

    @cached_property
    def calibration(self) -> list[Encoded]:
        """Training examples. Raises DataError where there are none."""
        path = self.examples / "train.parquet"
        rows = example_rows(path, self.run.ranker.compression.calibration_examples)
        if not rows:
            raise DataError(f"{path}: no examples to calibrate on", "expected at least one")
        return rows

    @cached_property
    def validation(self) -> list[Encoded]:
        """Validation examples, to choose by."""
        limit = self.run.ranker.compression.calibration_examples // 4
        return example_rows(self.examples / "validation.parquet", limit) or self.calibration[:64]

    def ranges(self, model: TrainedModel) -> ActivationRanges:
        """What goes through the model's products on training examples."""
        asked = counted(
            list(batches(self.calibration, pad_id=model.encoder.pad_id(model.document.architecture))),
            logger(stage="compress"),
            "calibrating",
            "batches",
        )
        return calibrate(model, asked)
