"""The tune stage: ask for trials, evaluate them side by side, tell the best.

The next wave is asked when all of this one are evaluated, so what a trial saw never depends on which of its neighbours
was quicker: tuning that was stopped and goes on gives the trials it would have given. See `plan` for the waves.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.config.tuning import Tuning
from reshelve.config.waves import rungs, wave_count
from reshelve.errors import ReshelveError, TryAgainError
from reshelve.lineage.results import TuneResult
from reshelve.lineage.run import Result, Run
from reshelve.logs import logger
from reshelve.store.errors import StoreRefusedError
from reshelve.training.installed import need_horovod
from reshelve.training.launch import JobStoppedError, check_names, checked_base, run_job, threads_each
from reshelve.training.memory import check_memory
from reshelve.training.spec import training_spec
from reshelve.training.warm_start import choose_start, start_files
from reshelve.tuning.budget import MAX_COST, MAX_MINUTES, Left, cost, left
from reshelve.tuning.history import TrialHistory
from reshelve.tuning.latency import latency_ms
from reshelve.tuning.observations import observations
from reshelve.tuning.past_nights import PastNights, best_of, past, remember
from reshelve.tuning.rates import at_share
from reshelve.tuning.standing import Standing, elapsed, standing
from reshelve.tuning.trial import Status, Trial

# A trial whose workers were killed is tried again once; then it counts as failed, and tuning goes on.
_ATTEMPTS = 2


def tune(run: Run) -> Result:
    """The whole tuning in this process; ends with `tell`'s result."""
    parallel = run.ranker.tuning.parallel
    for _ in range(wave_count(run.ranker.tuning) + 1):
        asked = ask(run)["trials"]
        if not asked:
            break
        with ThreadPoolExecutor(max_workers=parallel) as pool:
            list(pool.map(lambda identifier: _evaluate_persistently(run, identifier), asked))
    return tell(run)


def ask(run: Run) -> Result:
    """The ids to evaluate next, `tuning.parallel` at most; an empty list when tuning is over.

    Trials that were asked and not yet evaluated are given again. Asking twice gives the same ids. No wave starts
    once `tuning.max_minutes` of evaluating or `tuning.max_cost` are spent, and none once it is told.
    """
    closed = run.stage("tune").read(TuneResult)
    if closed is not None:  # by this run, or by another that asked the same
        return {"trials": [], "finished": closed.trials}
    form = run.ranker.tuning
    history = TrialHistory(run)
    trials = history.trials()
    at = standing(form, trials)
    asked: list[int] = []
    if at is None and form.most_trials < form.trials:
        logger(stage="tune").info("every point of tuning.space is tried", trials=form.most_trials)
    if at is not None:
        known = {(trial.id, trial.rung): trial for trial in trials}
        here = [known.get((identifier, at.wave.rung)) for identifier in at.ids]
        # A wave that was only partly written (its asker died) is completed before anyone goes on.
        if any(here) or _affordable(left(form, at), len(trials)):
            for trial in proposals(form, past(run), at, trials):
                history.add(_timed(run, trial))
            asked = [
                identifier
                for identifier, trial in zip(at.ids, here, strict=True)
                if trial is None or trial.status is Status.ASKED
            ]
    return {
        "trials": asked,
        "finished": sum(trial.status is not Status.ASKED for trial in trials),
    }


def proposals(form: Tuning, before: PastNights, at: Standing, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the wave that are not known yet. A function of its arguments alone."""
    known = {(trial.id, trial.rung): trial for trial in trials}
    missing = [identifier for identifier in at.ids if (identifier, at.wave.rung) not in known]
    share = rungs(form)[at.wave.rung]
    if at.wave.rung:
        fields = {"draws", "values", "latency_ms", "seen"}
        below = [known[identifier, at.wave.rung - 1].model_dump(include=fields) for identifier in missing]
        return [
            Trial(id=identifier, rung=at.wave.rung, share=share, **same)
            for identifier, same in zip(missing, below, strict=True)
        ]
    observed = [*before.observed, *observations(at.finished)]
    seen = tuple(sorted({trial.id for trial in at.finished}))
    # Only who asks for new trials waits for Hyperopt and SciPy, which take longer to import than all the rest.
    from reshelve.tuning.space import hyperopt_space, plain_values
    from reshelve.tuning.suggest import suggest

    space = hyperopt_space(form)
    taken = [trial.draws for trial in at.finished if trial.rung == 0]
    found = []
    for identifier in at.ids:  # all of the wave: each keeps off the points of those before it, written or not
        # The first trial is the best of the newest night: nights stay comparable, and none falls behind the last.
        again = before.best if identifier == 0 else None
        draws = again or suggest(form, identifier, observed, taken)
        taken.append(draws)
        values = plain_values(space, draws)
        found.append(Trial(id=identifier, share=share, draws=draws, values=values, seen=seen))
    return [trial for trial in found if trial.id in missing]


def evaluate(run: Run, trial: int) -> Result:
    """Train one trial on its share of the steps and record its loss; one that was evaluated stays as it is.

    A trial that cannot be trained (it diverged, its data is bad) counts as failed; one that the budget ends
    counts as stopped. Raises TryAgainError where its workers were killed for the first time (a retry resumes),
    ConfigurationError for an id that was never asked, and where Horovod is not installed, the host does not know its name, or
    the catalogue is too large for memory.
    """
    history = TrialHistory(run)
    with run.stage(f"tune-trial-{trial}").lock():
        found = history.trial(trial)
        if found.status is Status.ASKED:
            need_horovod()  # before the trial is counted: what the host lacks says nothing of the trial
            check_names()
            base = checked_base(run.ranker, _examples(run), run)
            check_memory(run, run.ranker, base.path, run.ranker.tuning.parallel)
            found = _evaluate(run, history, found)
    return {
        "trial": found.id,
        "loss": found.loss,
        "values": found.values,
        "share": found.share,
        "seconds": found.seconds,
        "status": found.status.value,
        "reason": found.reason,
    }


def tell(run: Run) -> Result:
    """Close the tuning: the best values among the trials of the largest budget evaluated so far.

    With `tuning.trials: 0`, an empty space, or a budget that ended before any trial did there is nothing to tell:
    `best` is empty and training uses the file's own values. Raises TryAgainError where all trials failed.
    """
    form = run.ranker.tuning
    trials = TrialHistory(run).trials()
    best = best_of(trials)
    at = standing(form, trials)
    ended = _ended(form, at, trials)
    if best is None and form.trials and form.space and ended not in (MAX_MINUTES, MAX_COST):
        reasons = "\n".join(f"trial {trial.id}: {trial.reason or trial.status.value}" for trial in trials)
        raise TryAgainError(f"{run.id}: no tuning trial succeeded", reasons or "none was evaluated")
    if best:
        remember(run, trials)
    return {
        "best": best.values if best else {},
        "loss": best.loss if best else None,
        "trials": len({trial.id for trial in trials}),
        "failed": sum(trial.status is Status.FAILED for trial in trials),
        "stopped": sum(trial.status is Status.STOPPED for trial in trials),
        "ended": ended,
        "trial_epochs": round(
            sum(t.share for t in trials if t.status is Status.DONE) * run.ranker.training.epochs, 4
        ),
        "minutes": round(elapsed(form, trials) / 60, 2),
        "cost": round(cost(form, sum(trial.seconds for trial in trials)), 4),
        "nights": list(past(run).nights) if trials else [],
        "history": [_entry(trial) for trial in trials],
    }


def _ended(tuning: Tuning, at: Standing | None, trials: Sequence[Trial]) -> str:
    """The key of the ranker file that ended the tuning; empty where it was told before its end."""
    stopped = [trial.reason for trial in trials if trial.status is Status.STOPPED]
    if stopped:
        return Ranker.new_name(stopped[0])  # it may have been written under another name
    if at is None:
        return "tuning.space" if tuning.most_trials < tuning.trials else "tuning.trials"
    found = left(tuning, at)
    return found.limit if found.seconds <= 0 else ""


def _entry(trial: Trial) -> dict[str, Any]:
    keys = (
        "rung",
        "share",
        "loss",
        "validation_loss",
        "latency_ms",
        "values",
        "status",
        "seconds",
        "step_seconds",
    )
    document = trial.model_dump(mode="json")
    return {"trial": trial.id, **{key: document[key] for key in keys}}


def _affordable(found: Left, trials: int) -> bool:
    if found.seconds > 0:
        return True
    logger(stage="tune").info("no more trials", limit=found.limit, trials=trials)
    return False


def _timed(run: Run, trial: Trial) -> Trial:
    if not run.ranker.tuning.latency_weight or trial.latency_ms is not None:
        return trial
    return trial.model_copy(update={"latency_ms": latency_ms(run, trial.values)})


def _evaluate(run: Run, history: TrialHistory, trial: Trial) -> Trial:
    log = logger(stage="tune", trial=trial.id)
    form = run.ranker.tuning
    at = standing(form, history.trials())
    assert at is not None and trial.id in at.ids  # it is asked, so its wave is the one that is not finished
    allowed = left(form, at)
    seconds = allowed.seconds - trial.seconds
    # Counted before it starts: an attempt that is killed has been one.
    trial = history.update(trial.model_copy(update={"attempts": trial.attempts + 1}))
    log.info("trial started", share=trial.share, seconds_left=round(seconds), **trial.values)
    started = time.monotonic()
    outcome: dict[str, Any]
    try:
        if seconds <= 0:
            raise JobStoppedError("nothing was left for this trial")
        found = _train(run, trial, seconds)
        slow = form.latency_weight * (trial.latency_ms or 0.0)
        loss = found["validation_loss"]
        outcome = {"status": Status.DONE, "validation_loss": loss, "loss": loss + slow}
        outcome["step_seconds"] = found["step_seconds"]
    except JobStoppedError:
        outcome = {"status": Status.STOPPED, "reason": allowed.limit}
    except TryAgainError as error:
        if trial.attempts < _ATTEMPTS:
            spent = round(trial.seconds + time.monotonic() - started, 1)
            history.update(trial.model_copy(update={"seconds": spent}))
            raise
        outcome = {"status": Status.FAILED, "reason": error.headline}
    except StoreRefusedError:
        raise  # says nothing of the trial's values
    except ReshelveError as error:
        outcome = {"status": Status.FAILED, "reason": error.headline}
    outcome["seconds"] = round(trial.seconds + time.monotonic() - started, 1)
    trial = history.update(trial.model_copy(update=outcome))
    shutil.rmtree(_directory(run, trial), ignore_errors=True)  # its loss is all that a trial leaves
    log.info("trial ended", status=trial.status.value, loss=trial.loss, seconds=trial.seconds)
    return trial


def _train(run: Run, trial: Trial, seconds: float) -> Result:
    ranker = at_share(run.ranker.with_values(trial.values), trial.share)
    examples = _examples(run)
    base = checked_base(ranker, examples, run)
    start = choose_start(run, base)  # the training's own: the best rate depends on where it starts
    job = training_spec(
        ranker,
        identity=f"{run.id}/trial-{trial.id}",
        base=base.path,
        start=start_files(run, start),
        start_version=start.version,
        examples=examples,
        output=_directory(run, trial),
        budget_share=trial.share,
        save=False,
    )
    return run_job(job, threads_each(run.ranker.tuning.parallel * ranker.training.processes), seconds)


def _examples(run: Run) -> Path:
    with run.stage("examples").lock():  # neighbours must not fetch the same files at once
        return run.stage("examples").files()


def _directory(run: Run, trial: Trial) -> Path:
    return run.stage("tune").directory / f".trial-{trial.id}-{trial.rung}"


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
