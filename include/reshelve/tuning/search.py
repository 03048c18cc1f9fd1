"""The tune stage: ask for trials, evaluate them side by side, tell the best.

A round is `search.parallel` trials that saw the same finished trials. The next round is asked when all of this one are
evaluated, so what a trial saw never depends on which of its neighbours was quicker: a search that was stopped and
goes on gives the trials it would have given.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reshelve.errors import ReshelveError, TryAgainError
from reshelve.lineage import Result, Run
from reshelve.logs import logger
from reshelve.training.launch import checked_base, run_job, threads_each
from reshelve.training.spec import training_spec
from reshelve.training.start import choose_start, start_files
from reshelve.tuning.history import History, Status, Trial
from reshelve.tuning.space import check_space, hyperopt_space, plain_values
from reshelve.tuning.suggest import suggest

# A trial whose workers were killed is tried again once; then it counts as failed, and the search goes on.
_ATTEMPTS = 2


def search(run: Run) -> Result:
    """The whole search in this process; ends with `tell`'s result."""
    parallel = run.ranker.search.parallel
    for _ in range(run.ranker.search.trials + 1):
        asked = ask(run)["trials"]
        if not asked:
            break
        with ThreadPoolExecutor(max_workers=parallel) as pool:
            list(pool.map(lambda identifier: _evaluate_persistently(run, identifier), asked))
    return tell(run)


def ask(run: Run) -> Result:
    """The ids to evaluate next, `search.parallel` at most; an empty list when the search is over.

    Trials that were asked and not yet evaluated are given again. Asking twice gives the same ids. No trial starts
    after `search.max_minutes` of evaluating.
    """
    form = run.ranker.search
    check_space(run.ranker)
    history = History(run)
    trials = history.trials()
    pending = [trial.id for trial in trials if trial.status is Status.ASKED]
    # A round that was only partly written (its asker died) is completed before anyone goes on.
    missing = form.parallel - len(trials) % form.parallel if len(trials) % form.parallel else 0
    fresh = missing if pending or missing else form.parallel
    if not pending and not missing and _seconds(trials, form.parallel) > form.max_minutes * 60:
        logger(stage="tune").info("no more trials: search.max_minutes", trials=len(trials))
        fresh = 0
    if not form.space:
        fresh = 0
    first = len(trials)
    start = first // form.parallel * form.parallel  # of the round
    finished = [trial for trial in trials if trial.id < start]
    space = hyperopt_space(form)
    for identifier in range(first, min(first + fresh, form.trials)):
        draws = suggest(form, identifier, finished)
        history.add(
            Trial(
                id=identifier,
                draws=draws,
                values=plain_values(space, draws),
                seen=tuple(trial.id for trial in finished),
            )
        )
        pending.append(identifier)
    return {
        "trials": sorted(pending),
        "finished": len(trials) - len([t for t in trials if t.status is Status.ASKED]),
    }


def evaluate(run: Run, trial: int) -> Result:
    """Train one trial on its share of the steps and record its validation loss; one that was evaluated stays as it is.

    A trial that cannot be trained (it diverged, its data is bad) counts as failed. Raises TryAgainError where its
    workers were killed for the first time (a retry resumes), ConfigurationError for an id that was never asked.
    """
    history = History(run)
    with run.stage(f"tune-trial-{trial}").lock():
        found = history.trial(trial)
        if found.status is Status.ASKED:
            found = _evaluate(run, history, found)
    return {
        "trial": found.id,
        "loss": found.loss,
        "values": found.values,
        "seconds": found.seconds,
        "status": found.status.value,
        "reason": found.reason,
    }


def tell(run: Run) -> Result:
    """Close the search: the best values among the trials evaluated so far.

    With `search.trials: 0` or an empty space there is nothing to tell: `best` is empty and training uses the file's
    own values. Raises TryAgainError where trials were wanted and none succeeded.
    """
    form = run.ranker.search
    trials = History(run).trials()
    done = [trial for trial in trials if trial.loss is not None]
    if form.trials and form.space and not done:
        reasons = "\n".join(f"trial {trial.id}: {trial.reason or trial.status.value}" for trial in trials)
        raise TryAgainError(f"{run.id}: no trial of the search succeeded", reasons or "none was evaluated")
    best = min(done, key=lambda trial: (trial.loss, trial.id)) if done else None
    keys = {"id": "trial", "loss": "loss", "values": "values", "status": "status", "seconds": "seconds"}
    documents = [trial.model_dump(mode="json") for trial in trials]
    return {
        "best": best.values if best else {},
        "loss": best.loss if best else None,
        "trials": len(trials),
        "failed": sum(trial.status is Status.FAILED for trial in trials),
        "seconds_searched": round(_seconds(trials, form.parallel), 1),
        "history": [{keys[name]: document[name] for name in keys} for document in documents],
    }


def _evaluate(run: Run, history: History, trial: Trial) -> Trial:
    log = logger(stage="tune", trial=trial.id)
    ranker = run.ranker.with_values(trial.values)
    with run.stage("examples").lock():  # neighbours must not fetch the same files at once
        examples = run.stage("examples").files()
    output = run.stage("tune").directory / f".trial-{trial.id}"
    base = checked_base(ranker, examples, run)
    start = choose_start(run, base)  # the training's own: the best rate depends on where it starts
    job = training_spec(
        ranker,
        identity=f"{run.id}/trial-{trial.id}",
        base=base.path,
        start=start_files(run, start),
        start_version=start.version,
        examples=examples,
        output=output,
        budget_share=run.ranker.search.budget_share,
        save=False,
    )
    # Counted before it starts: an attempt that is killed has been one.
    trial = history.update(trial.model_copy(update={"attempts": trial.attempts + 1}))
    log.info("trial started", **trial.values)
    started = time.monotonic()
    outcome: dict[str, Any]
    try:
        result = run_job(job, threads_each(run.ranker.search.parallel * ranker.training.processes))
        outcome = {"status": Status.DONE, "loss": result["validation_loss"]}
    except TryAgainError as error:
        if trial.attempts < _ATTEMPTS:
            raise
        outcome = {"status": Status.FAILED, "reason": error.headline}
    except ReshelveError as error:
        outcome = {"status": Status.FAILED, "reason": error.headline}
    outcome["seconds"] = round(trial.seconds + time.monotonic() - started, 1)
    trial = history.update(trial.model_copy(update=outcome))
    shutil.rmtree(output, ignore_errors=True)  # its loss is all that a trial leaves
    log.info("trial ended", status=trial.status.value, loss=trial.loss, seconds=trial.seconds)
    return trial


def _evaluate_persistently(run: Run, trial: int) -> None:
    """Evaluate, trying again where an attempt was cut off; the attempts are counted in the trial itself."""
    for attempt in range(_ATTEMPTS):
        try:
            evaluate(run, trial)
            return
        except TryAgainError as error:
            if attempt + 1 == _ATTEMPTS:
                raise
            logger(stage="tune", trial=trial).warning("tried again", reason=error.headline)


def _seconds(trials: list[Trial], parallel: int) -> float:
    """Seconds of evaluating so far, trials of one round counted as running side by side."""
    rounds: dict[int, float] = {}
    for trial in trials:
        rounds[trial.id // parallel] = max(rounds.get(trial.id // parallel, 0.0), trial.seconds)
    return sum(rounds.values())
