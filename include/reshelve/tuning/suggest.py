"""Hyperopt's TPE as a pure function: the next trial from what was observed and a seed, and nothing else.

Hyperopt's own loop keeps its random state in memory and forgets failed trials, so that tuning that was stopped does
not go on as it would have. Here each trial has a seed of its own, and a failed trial counts as one to stay away from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hyperopt import tpe
from hyperopt.base import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Domain, trials_from_docs

from reshelve.config.tuning import Choice, Tuning
from reshelve.tuning.observations import TrialObservation
from reshelve.tuning.space import hyperopt_space
from reshelve.tuning.trial import Draws

# Trials drawn at random before TPE models anything: a quarter of the trials, ten at most (Hyperopt's default is 20).
# Observations of past nights count as trials.
_STARTUP_SHARE, _STARTUP_MOST, _STARTUP_LEAST = 0.25, 10, 2


def suggest(
    tuning: Tuning, identifier: int, observed: Sequence[TrialObservation], taken: Iterable[Draws] = ()
) -> Draws:
    """The draws of trial `identifier`, given what was observed, the oldest first: the last 25 weigh most.

    In a space that can be counted no point of `taken`, which are fewer than all.
    """
    return _not_taken(tuning, identifier, _proposed(tuning, identifier, observed), taken)


def _not_taken(tuning: Tuning, identifier: int, draws: Draws, taken: Iterable[Draws]) -> Draws:
    """`draws`, or where they were tried before a point that was not: one choice after another is drawn anew."""
    if tuning.points is None:
        return draws
    tried = {tuple(sorted(point.items())) for point in taken}
    random = np.random.default_rng([tuning.seed, identifier])
    paths = sorted(tuning.space)
    while tuple(sorted(draws.items())) in tried:
        path = paths[random.integers(len(paths))]
        form = tuning.space[path]
        assert isinstance(form, Choice)
        draws = {**draws, path: int(random.integers(len(form.choice)))}
    return draws


def _proposed(tuning: Tuning, identifier: int, observed: Sequence[TrialObservation]) -> Draws:
    domain = Domain(_never, hyperopt_space(tuning))
    documents = [_document(number, observation, domain) for number, observation in enumerate(observed)]
    history = trials_from_docs(documents, validate=False)
    # Trials of one wave see the same history; the seed is what tells them apart.
    seed = int(np.random.SeedSequence([tuning.seed, identifier]).generate_state(1)[0])
    startup = min(_STARTUP_MOST, max(_STARTUP_LEAST, round(tuning.most_trials * _STARTUP_SHARE)))
    new = len(documents) + identifier
    [document] = tpe.suggest([new], domain, history, seed, n_startup_jobs=startup, verbose=False)
    return {
        path: value[0].item() if hasattr(value[0], "item") else value[0]
        for path, value in document["misc"]["vals"].items()
    }


def _document(number: int, observation: TrialObservation, domain: Any) -> dict[str, Any]:
    """An observation in Hyperopt's form. One without a loss weighs as the worst possible."""
    loss = observation.loss
    misc = {
        "tid": number,
        "cmd": domain.cmd,
        "workdir": None,
        "idxs": {path: [number] for path in observation.draws},
        "vals": {path: [value] for path, value in observation.draws.items()},
    }
    return {
        "tid": number,
        "state": JOB_STATE_DONE,
        "spec": None,
        "result": {"status": STATUS_FAIL} if loss is None else {"status": STATUS_OK, "loss": loss},
        "misc": misc,
        "exp_key": None,
        "owner": None,
        "version": 0,
        "book_time": None,
        "refresh_time": None,
    }


def _never(_: Any) -> float:
    raise AssertionError("trials are evaluated by the tune stage, not by Hyperopt")
