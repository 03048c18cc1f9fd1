"""Hyperopt's TPE as a pure function: the next trial from the finished ones and a seed, and nothing else.

Hyperopt's own loop keeps its random state in memory and forgets failed trials, so that a search that was stopped does
not go on as it would have. Here each trial has a seed of its own, and a failed trial counts as one to stay away from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hyperopt import tpe
from hyperopt.base import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Domain, trials_from_docs

from reshelve.rankers import Search
from reshelve.tuning.history import Trial
from reshelve.tuning.space import Draws, hyperopt_space

# Trials drawn at random before TPE models anything: a quarter of the search, ten at most (Hyperopt's default is 20).
_STARTUP_SHARE, _STARTUP_MOST, _STARTUP_LEAST = 0.25, 10, 2


def suggest(search: Search, identifier: int, finished: Sequence[Trial]) -> Draws:
    """The draws of trial `identifier`, given the trials that are done or failed."""
    domain = Domain(_never, hyperopt_space(search))
    history = trials_from_docs([_document(trial, domain) for trial in finished], validate=False)
    # Trials of one round see the same history; the seed is what tells them apart.
    seed = int(np.random.SeedSequence([search.seed, identifier]).generate_state(1)[0])
    startup = min(_STARTUP_MOST, max(_STARTUP_LEAST, round(search.trials * _STARTUP_SHARE)))
    [document] = tpe.suggest([identifier], domain, history, seed, n_startup_jobs=startup, verbose=False)
    return {
        path: value[0].item() if hasattr(value[0], "item") else value[0]
        for path, value in document["misc"]["vals"].items()
    }


def _document(trial: Trial, domain: Any) -> dict[str, Any]:
    """A trial in Hyperopt's form. One without a loss weighs as the worst possible."""
    result = {"status": STATUS_FAIL} if trial.loss is None else {"status": STATUS_OK, "loss": trial.loss}
    misc = {
        "tid": trial.id,
        "cmd": domain.cmd,
        "workdir": None,
        "idxs": {path: [trial.id] for path in trial.draws},
        "vals": {path: [value] for path, value in trial.draws.items()},
    }
    return {
        "tid": trial.id,
        "state": JOB_STATE_DONE,
        "spec": None,
        "result": result,
        "misc": misc,
        "exp_key": None,
        "owner": None,
        "version": 0,
        "book_time": None,
        "refresh_time": None,
    }


def _never(_: Any) -> float:
    raise AssertionError("trials are evaluated by the tune stage, not by Hyperopt")
