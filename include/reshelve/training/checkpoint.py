"""Checkpoints: model, optimizer and place in one safetensors file that is whole or not there.

The order of examples and every random draw are functions of seed and step, so the step is all the place there is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reshelve.files import whole
from reshelve.logs import logger
from reshelve.training.adapters import TrainedAdapter
from reshelve.training.averaging import Average


@dataclass
class TrainingPosition:
    """How far a job has come. `seconds` counts all its attempts; `curve` is what its curves show so far."""

    step: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0  # without validations
    cpu_seconds: float = 0.0  # of rank 0
    examples: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)  # validation before any training
    best: dict[str, Any] = field(
        default_factory=dict
    )  # with patience: step and validation of the best weights
    stale: int = 0  # with patience: validations since


@dataclass
class TrainingState:
    """All that changes while a job trains, beside its place."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None = None
    adapter: TrainedAdapter | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The live tensors, equal on every process: what is copied into one of them is there."""
        parts = {
            "model": {name: value.detach() for name, value in self.model.state_dict().items()},
            "optimizer": optimizer_tensors(self.model, self.optimizer),
            "average": self.average.values if self.average else {},
            "adapter": self.adapter.tensors() if self.adapter else {},
        }
        return {f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()}


def save_checkpoint(
    path: Path, digest: str, state: TrainingState, best: dict[str, Tensor], place: TrainingPosition
) -> None:
    """Write all of a job's state, and the best weights put aside, to `path`, by way of a temporary name."""
    tensors = state.tensors() | {f"best.{name}": value for name, value in best.items()}
    with whole(path, durable=True) as partial:
        save_file(
            {name: value.cpu().contiguous() for name, value in tensors.items()},
            partial,
            metadata={"digest": digest, "place": json.dumps(asdict(place))},
        )


def load_checkpoint(
    path: Path, digest: str, state: TrainingState
) -> tuple[TrainingPosition, dict[str, Tensor]]:
    """Put `path`'s tensors into `state`; its place, and the best weights put aside.

    The place of a start, and a log line, where the file does not fit.
    """
    if not path.is_file():
        return TrainingPosition(), {}
    log = logger(stage="train")
    try:
        with safe_open(path, framework="pt") as found:
            metadata = found.metadata() or {}
            if metadata.get("digest") != digest:
                log.info("checkpoint of another spec ignored")
                return TrainingPosition(), {}
            place = TrainingPosition(**json.loads(metadata["place"]))
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        log.warning("damaged checkpoint ignored", reason=str(error))
        return TrainingPosition(), {}
    for name, value in state.tensors().items():
        value.copy_(tensors[name])
    return place, _under("best.", tensors)


def begin_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Make AdamW's state as its first step would, so that there is something to fill or to broadcast."""
    for parameter in (value for value in model.parameters() if value.requires_grad):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state as flat names: `<parameter>.<exp_avg, exp_avg_sq or step>` → the live tensor."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for key, value in optimizer.state[parameter].items()
    }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
