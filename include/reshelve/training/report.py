"""What a job says of itself: log lines, `.progress.json`, curves, and its result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.training import spec as names
from reshelve.training.checkpoint import TrainingPosition
from reshelve.training.curves import Curves, write_json
from reshelve.training.device import wait_for_device
from reshelve.training.spec import TrainingSpec

REPORT_SECONDS = 3.0  # a person who waits sees something move


class TrainingReporter:
    """Keeps time and losses; on rank 0 also says so: log lines, `.progress.json`, curves."""

    def __init__(self, spec: TrainingSpec, steps: int, place: TrainingPosition, quiet: bool) -> None:
        self._spec, self._steps, self._place, self._quiet = spec, steps, place, quiet
        self._first_step, self._first_examples = place.step, place.examples
        self._losses: list[Tensor] = []  # tensors: reading one waits for the accelerator
        self._curves = None if quiet else Curves(spec.output, place.curve)
        self._log = logger(stage="train" if spec.save else "trial")
        self._started = self._reported = self._saved = self._stepping = time.monotonic()
        self._cpu = time.process_time()

    def seconds(self) -> float:
        """Seconds of training, over all attempts."""
        return self._place.seconds + time.monotonic() - self._started

    def step_seconds(self) -> float:
        """Those of the training steps, validations left out."""
        return self._place.step_seconds + time.monotonic() - self._stepping

    def cpu_seconds(self) -> float:
        """CPU seconds of this process's training steps, over all attempts."""
        return self._place.cpu_seconds + time.process_time() - self._cpu

    def step(self, step: int, loss: Tensor, examples: int) -> None:
        """Note one step; every few seconds say so."""
        self._losses.append(loss.detach())
        self._place.examples += examples
        due = time.monotonic() - self._reported > REPORT_SECONDS
        if not self._quiet and (due or step in (1, self._steps)):
            mean = float(torch.stack(self._losses).mean())
            self._losses.clear()
            self._tell(step, mean)
            if self._curves:
                self._curves.add(step, self.seconds(), loss=mean)

    def _tell(self, step: int, loss: float) -> None:
        self._reported = time.monotonic()
        spent = self._reported - self._started
        left = spent / max(1, step - self._first_step) * (self._steps - step)
        rate = (self._place.examples - self._first_examples) / spent
        self._log.info(
            "step",
            step=f"{step}/{self._steps}",
            loss=round(loss, 4),
            examples_per_second=round(rate, 1),
            seconds_left=round(left),
        )
        write_json(
            self._spec.output / names.PROGRESS,
            {"step": step, "steps": self._steps, "loss": round(loss, 4), "seconds_left": round(left)},
        )

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """Time spent within is none of the steps'."""
        wait_for_device()  # steps under way are theirs
        cpu, wall = time.process_time(), time.monotonic()
        yield
        self._cpu += time.process_time() - cpu
        self._stepping += time.monotonic() - wall

    def validation(self, step: int, found: dict[str, float]) -> None:
        """Note a validation."""
        if self._curves:
            drawn = {f"validation_{name}": value for name, value in found.items() if name != "lists"}
            self._curves.add(step, self.seconds(), **drawn)
            shown = {name: round(value, 4) for name, value in found.items()}
            self._log.info("validation", step=f"{step}/{self._steps}", **shown)

    def checkpoint_due(self, every: float) -> bool:
        """Whether the last checkpoint is that many seconds old."""
        if time.monotonic() - self._saved < every:
            return False
        self._saved = time.monotonic()
        return True

    def place(self, step: int) -> TrainingPosition:
        """What a checkpoint at `step` has to remember."""
        points = self._curves.points if self._curves else []
        return replace(
            self._place,
            step=step,
            seconds=self.seconds(),
            step_seconds=self.step_seconds(),
            cpu_seconds=self.cpu_seconds(),
            curve=points,
        )

    def result(self, step: int, last: dict[str, float], device: str) -> dict[str, object]:
        """The job's result, for the stage's."""
        losses = [point["loss"] for point in (self._curves.points if self._curves else []) if "loss" in point]
        metric = kind_of(self._spec.kind).learning.metric
        return {
            "digest": self._spec.digest(),
            "loss": losses[-1],
            "first_loss": losses[0],
            "validation_loss": last["loss"],
            "validation_metric": {
                "name": metric,
                "value": last.get(metric),
                "low": last.get(f"{metric}_low"),
                "high": last.get(f"{metric}_high"),
                "lists": last.get("lists", 0),
                "first": self._place.first.get(metric),
            },
            "first_validation_loss": self._place.first.get("loss"),
            "steps": step,
            "steps_planned": self._steps,
            "examples": self._place.examples,
            "cpu_seconds": round(self.cpu_seconds(), 3),
            "training_seconds": round(self.seconds(), 3),
            "samples_per_second": round(self._place.examples / max(self.seconds(), 1e-9), 1),
            "device": device,
        }

    def __enter__(self) -> TrainingReporter:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._curves:
            self._curves.__exit__(None, None, None)
