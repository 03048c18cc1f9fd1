"""How long past nights took, from the results that their stages left on S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reshelve.kind_registry import stages_of
from reshelve.lineage.run import Run
from reshelve.store.layout import runs_of

NIGHTS = 10  # newest runs that are looked at: enough for a median, few enough to be read in a second


@dataclass(frozen=True)
class PastNight:
    """One run's times, in seconds. What it did not do is None."""

    stages: dict[str, float]  # by stage that is done
    trial_seconds_per_epoch: float | None = None  # of one trial's steps
    trial_seconds_beside: float = (
        0.0  # of one trial, however short: workers start, and what it learned is validated
    )
    training_seconds: float | None = None
    training_examples: int | None = None  # examples seen, over all epochs
    examples: int | None = None  # to train on
    size: dict[str, int] | None = None  # of its version, as its examples foretold: see `size_of`

    @classmethod
    def of(cls, results: dict[str, dict[str, Any]]) -> PastNight:
        """From results by stage."""
        tune, train = results.get("tune", {}), results.get("train", {})
        history = [entry for entry in tune.get("history") or [] if entry["status"] == "done"]
        beside = _beside(history, train)
        steps = sum(max(0.0, entry["seconds"] - beside) for entry in history)
        epochs = float(tune.get("trial_epochs") or 0)
        return cls(
            stages={name: float(result.get("seconds") or 0) for name, result in results.items()},
            trial_seconds_per_epoch=steps / epochs if epochs and history else None,
            trial_seconds_beside=beside,
            training_seconds=train.get("training_seconds"),
            training_examples=train.get("examples"),
            examples=results.get("examples", {}).get("train"),
            size=size_of(results.get("examples", {})),
        )


def size_of(examples: dict[str, Any]) -> dict[str, int] | None:
    """`items`, `version_bytes` and, where the catalogue has a limit, `items_that_fit` of an examples stage's result; None where it does not say."""
    found = {name: examples.get(name) for name in ("items", "version_bytes", "items_that_fit")}
    known = {name: int(value) for name, value in found.items() if value is not None}
    return known if {"items", "version_bytes"} <= known.keys() else None


def _beside(history: list[dict[str, Any]], train: dict[str, Any]) -> float:
    """Seconds of a trial that do not shrink with its share of a training.

    A night of before trials said so is taken to have had those of its own training, as far as its quickest trial has room.
    """
    if not history:
        return 0.0
    known = [entry["seconds"] - entry["step_seconds"] for entry in history if entry.get("step_seconds")]
    if known:
        return max(0.0, sum(known) / len(known))
    trained = train.get("training_seconds")
    of_training = max(0.0, float(train.get("seconds") or 0) - trained) if trained is not None else 0.0
    return min(of_training, *(entry["seconds"] for entry in history))


def past_nights(run: Run) -> list[PastNight]:
    """The ranker's newest runs beside this one, the newest first; of any partition: a backfill takes as long."""
    return [PastNight.of(results) for results in _results(run)]


def _results(run: Run) -> Iterator[dict[str, dict[str, Any]]]:
    found, prefix = 0, runs_of(run.ranker.name)
    for partition in reversed(run.store.folders(prefix)):
        for digest in run.store.folders(f"{prefix}{partition}/"):
            if f"{prefix}{partition}/{digest}" == run.prefix:
                continue
            below = f"{prefix}{partition}/{digest}"
            read = {
                name: run.store.get_json(f"{below}/{name}/result.json") for name in stages_of(run.ranker.kind)
            }
            results = {name: dict(result) for name, result in read.items() if result is not None}
            if results and not results.get("examples", {}).get("refreshed"):  # that trained nothing
                yield results
                found += 1
            if found == NIGHTS:
                return
