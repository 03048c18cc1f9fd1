"""The jobs of the GPU check: each form of model, loss and adapter once, small, by the worker's own loop in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu_data import FEATURES, spec

from reshelve.training import spec as names
from reshelve.training import worker

PAIRS: dict[str, dict[str, Any]] = {
    "pair": {},
    "pair, mean pooling, listwise, moving average": {
        "model": {"pooling": "mean"},
        "training": {"loss": "listwise", "average": "ema"},
    },
    "pair, towers and features, pairwise": {
        "model": {"towers": True, "pooling": "mean"},
        "training": {"loss": "pairwise"},
        "features": FEATURES,
    },
    "pair, squared, adversarial, accumulated": {
        "training": {"loss": "squared", "adversarial": 0.1, "accumulate": 2}
    },
    "pair, LoRA": {"training": {"adapter": {"kind": "lora"}}},
    "pair, AdaLoRA": {"training": {"adapter": {"kind": "adalora"}}},
}
BASKETS: dict[str, dict[str, Any]] = {
    "next item, patience": {"training": {"patience": 3}},
    "next item, mean pooling": {"model": {"pooling": "mean"}},
}


class CutOff(Exception):  # noqa: N818 - it stands for a power cut
    """Raised in place of a job's end."""


def all_jobs() -> list[tuple[str, str, dict[str, Any]]]:
    """Name, kind and values of every job."""
    return [(name, "pair", values) for name, values in PAIRS.items()] + [
        (name, "next_item", values) for name, values in BASKETS.items()
    ]


def job(place: Path, name: str, kind: str, values: dict[str, Any], output: Path) -> Any:
    """The spec of one of the jobs, over the data in `place`."""
    return spec(place / "base", place / f"examples-{kind}", output, kind, **values)


def run_jobs(place: Path, output: Path) -> dict[str, dict[str, Any]]:
    """All jobs on what this process computes on, and one that learns from the first: their results."""
    found = {}
    for name, kind, values in all_jobs():
        one = job(place, name, kind, values, output / name.replace(", ", "-").replace(" ", "_"))
        worker.train(one)
        found[name] = json.loads((one.output / names.RESULT).read_text())
    taught = {"teacher": output / "pair", "teacher_share": 0.5}
    one = job(place, "taught", "pair", taught, output / "taught")
    worker.train(one)
    return found | {"pair, with a teacher": json.loads((one.output / names.RESULT).read_text())}


def cut_off(one: Any, step: int) -> None:
    """Train until the checkpoint of `step` is written, and stop there as a power cut would."""
    save = worker.save_checkpoint

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        if arguments[-1].step == step:
            raise CutOff

    worker.save_checkpoint = save_and_stop
    try:
        worker.train(one)
    except CutOff:
        return
    finally:
        worker.save_checkpoint = save
    raise AssertionError("the job ended before it was cut off")
