"""What past nights with the same search space learned, written down at a night's first ask and unchanged from then on.

Each closed tuning leaves a small document beside the runs, `searches/<ranker>/<partition>/<digest>.json`: housekeeping
deletes old runs. A night reads only partitions before its own, so a backfill never learns from its future.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.config.waves import rungs
from reshelve.config.yaml_models import Form
from reshelve.lineage.run import Run
from reshelve.store.objects import PreconditionFailedError
from reshelve.tuning.observations import TrialObservation, observations
from reshelve.tuning.trial import Draws, Trial


class PastNights(Form):
    """Observations of past nights, the oldest first, and the best point of the newest."""

    nights: tuple[str, ...] = ()
    observed: tuple[TrialObservation, ...] = ()
    best: Draws | None = None


class Closed(Form):
    """A closed tuning. Only trials of an equal `space` can be learned from."""

    space: str
    trials: tuple[Trial, ...]


def past(run: Run) -> PastNights:
    """What this run learns from: what the first ask found, however often and late it is asked again."""
    key = _past_key(run)
    document = run.store.get_json(key)
    if document is None:
        with suppress(PreconditionFailedError):  # another asker was quicker: what it wrote counts for both
            run.store.put_json(key, _gathered(run).model_dump(mode="json"), if_absent=True)
        document = run.store.get_json(key)
    return PastNights.model_validate(document)


def learned_from(run: Run) -> str:
    """16 hex digits over what `past` gives, or would give now; nothing is written."""
    document = run.store.get_json(_past_key(run)) or _gathered(run).model_dump(mode="json")
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def remember(run: Run, trials: Sequence[Trial]) -> None:
    """Leave this night's trials to those after it."""
    closed = Closed(space=space_digest(run.ranker), trials=tuple(trials))
    run.store.put_json(
        f"searches/{run.ranker.name}/{run.partition.isoformat()}/{run.digest}.json",
        closed.model_dump(mode="json"),
    )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial of least loss at the largest budget that any of them finished."""
    done = [trial for trial in trials if trial.loss is not None]
    return min(done, key=lambda trial: (-trial.rung, trial.loss, trial.id), default=None)


def space_digest(ranker: Ranker) -> str:
    """16 hex digits over what makes two nights' trials points of one space: its ranges, the budgets, the base model."""
    tuning = ranker.tuning
    parts: dict[str, Any] = {
        "space": tuning.model_dump(mode="json")["space"],
        "rungs": rungs(tuning),
        "latency": tuning.latency_weight,
        "kind": ranker.kind,
        "base": ranker.model.base,
    }
    if tuning.rate_exponent:  # nights from before there was one are those without
        parts["rate_exponent"] = tuning.rate_exponent
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _past_key(run: Run) -> str:
    return f"{run.prefix}/tune-past.json"


def _gathered(run: Run) -> PastNights:
    nights: list[tuple[str, Closed]] = []
    prefix = f"searches/{run.ranker.name}/"
    wanted = space_digest(run.ranker)
    if run.ranker.tuning.nights and run.ranker.tuning.space:
        for partition in reversed(run.store.folders(prefix)):
            if partition < run.partition.isoformat() and (
                closed := _night(run, f"{prefix}{partition}/", wanted)
            ):
                nights.insert(0, (partition, closed))
            if len(nights) == run.ranker.tuning.nights:
                break
    if not nights:
        return PastNights()
    newest = best_of(nights[-1][1].trials)
    return PastNights(
        nights=tuple(partition for partition, _ in nights),
        observed=tuple(seen for _, closed in nights for seen in observations(closed.trials)),
        best=newest.draws if newest else None,
    )


def _night(run: Run, prefix: str, wanted: str) -> Closed | None:
    """A partition's tuning in that space; of several (the night was repeated) the one with most losses."""
    documents = [run.store.get_json(key) for key, _ in run.store.list(prefix)]
    found = [
        closed for closed in (Closed.model_validate(d) for d in documents if d) if closed.space == wanted
    ]
    found = [closed for closed in found if best_of(closed.trials)]
    return max(found, key=lambda closed: sum(t.loss is not None for t in closed.trials), default=None)
