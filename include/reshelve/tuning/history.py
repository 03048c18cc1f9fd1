"""The memory of tuning: one JSON document per trial and rung, on S3, under the run.

A trial is `asked` with its values and the ids of the trials that were known then, and later `done` with a loss,
`failed` with a reason, or `stopped` by the budget. Nothing is kept elsewhere, so tuning goes on on another machine as
if never stopped.
"""

from __future__ import annotations

from reshelve.errors import ConfigurationError
from reshelve.lineage.run import Run
from reshelve.store.objects import PreconditionFailedError
from reshelve.tuning.trial import Trial


class TrialHistory:
    """The trials of one run."""

    def __init__(self, run: Run) -> None:
        self._store = run.store
        self._prefix = f"{run.prefix}/tune-trials"

    def trials(self) -> list[Trial]:
        """All trials, by id and rung."""
        found = [self._store.get_json(key) for key, _ in self._store.list(f"{self._prefix}/")]
        return sorted(
            (Trial.model_validate(document) for document in found), key=lambda trial: (trial.id, trial.rung)
        )

    def trial(self, identifier: int) -> Trial:
        """One trial at the highest rung it was asked for. Raises ConfigurationError where it was never asked."""
        keys = sorted(key for key, _ in self._store.list(f"{self._prefix}/{identifier:06d}-"))
        document = self._store.get_json(keys[-1]) if keys else None
        if document is None:
            raise ConfigurationError(
                f"there is no trial {identifier}", "expected an id returned by `reshelve tune ask`"
            )
        return Trial.model_validate(document)

    def add(self, trial: Trial) -> None:
        """Record a new trial; one that already exists stays as it is: two askers get the same trials."""
        try:
            self._store.put_json(self._key(trial), trial.model_dump(mode="json"), if_absent=True)
        except PreconditionFailedError:
            return

    def update(self, trial: Trial) -> Trial:
        """Replace a trial's document; its evaluator holds the trial's lock."""
        self._store.put_json(self._key(trial), trial.model_dump(mode="json"))
        return trial

    def _key(self, trial: Trial) -> str:
        return f"{self._prefix}/{trial.id:06d}-{trial.rung:02d}.json"
