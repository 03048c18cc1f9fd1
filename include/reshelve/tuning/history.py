"""The search's memory: one JSON document per trial, on S3, under the run.

A trial is `asked` with its values and the ids of the trials that were known then, and later `done` with a loss
or `failed` with a reason. Nothing is kept elsewhere, so a search goes on on another machine as if never stopped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from reshelve.errors import ConfigurationError
from reshelve.lineage import Run
from reshelve.rankers import Form
from reshelve.store.objects import PreconditionFailedError


class Status(StrEnum):
    """Where a trial stands."""

    ASKED = "asked"
    DONE = "done"
    FAILED = "failed"


class Trial(Form):
    """One trial. `draws` are Hyperopt's own values, `values` the ranker's; `seen` the trials that led to them."""

    id: int
    draws: dict[str, float | int]
    values: dict[str, Any]
    seen: tuple[int, ...] = ()
    status: Status = Status.ASKED
    attempts: int = 0
    loss: float | None = None
    seconds: float = 0.0
    reason: str = ""


class History:
    """The trials of one run."""

    def __init__(self, run: Run) -> None:
        self._store = run.store
        self._prefix = f"{run.prefix}/tune-trials"

    def trials(self) -> list[Trial]:
        """All trials, by id."""
        found = [self._store.get_json(key) for key, _ in self._store.list(f"{self._prefix}/")]
        return sorted((Trial.model_validate(document) for document in found), key=lambda trial: trial.id)

    def trial(self, identifier: int) -> Trial:
        """One trial. Raises ConfigurationError where it was never asked."""
        document = self._store.get_json(self._key(identifier))
        if document is None:
            raise ConfigurationError(
                f"there is no trial {identifier}", "expected an id that `reshelve tune ask` gave"
            )
        return Trial.model_validate(document)

    def add(self, trial: Trial) -> None:
        """Record a new trial; one that is there already stays as it is: two askers get the same trials."""
        try:
            self._store.put_json(self._key(trial.id), trial.model_dump(mode="json"), if_absent=True)
        except PreconditionFailedError:
            return

    def update(self, trial: Trial) -> Trial:
        """Replace a trial's document; its evaluator holds the trial's lock."""
        self._store.put_json(self._key(trial.id), trial.model_dump(mode="json"))
        return trial

    def _key(self, identifier: int) -> str:
        return f"{self._prefix}/{identifier:06d}.json"
