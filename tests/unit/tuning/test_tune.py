"""Tuning: exact ask and tell, failed trials that count, and a resume that changes nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.lineage.run import Run, run_stage
from reshelve.store.objects import ObjectStore
from reshelve.tuning.history import TrialHistory
from reshelve.tuning.observations import observations
from reshelve.tuning.past_nights import past, remember
from reshelve.tuning.trial import Status, Trial
from reshelve.tuning.tune import ask, evaluate, tell, tune

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(store: ObjectStore, tmp_path: Path, make_ranker: Callable[..., Ranker]) -> MakeRun:
    """A run whose tuning has a store of its own name; nothing is trained."""

    def make(name: str = "a", day: int = 30, **values: object) -> Run:
        ranker = make_ranker("next_item", **{"name": f"tiny_{name}", "tuning.trials": 10, **values})
        return Run(ranker, date(2011, 8, day), store, tmp_path / "work")

    return make


def score(values: dict[str, float]) -> float:
    """A loss with its best at a rate of 1e-3 and the smaller batch."""
    return abs(math.log10(values["training.learning_rate"]) + 3) + 0.1 * (values["training.batch_size"] == 16)


def record(run: Run, identifier: int, failed: bool = False) -> None:
    """Write down an evaluation, as `evaluate` does, without training."""
    history = TrialHistory(run)
    trial = history.trial(identifier)
    change = {"status": Status.FAILED} if failed else {"status": Status.DONE, "loss": score(trial.values)}
    history.update(trial.model_copy(update={**change, "seconds": 1.0}))


def play(run: Run, rounds: int = 100, backwards: bool = False) -> None:
    for _ in range(rounds):
        asked = ask(run)["trials"]
        if not asked:
            return
        for identifier in sorted(asked, reverse=backwards):
            record(run, identifier, failed=identifier == 3)


def draws(run: Run) -> list[dict[str, float | int]]:
    return [trial.draws for trial in TrialHistory(run).trials()]


def test_tuning_asks_for_rounds_until_its_trials_are_spent(make_run: MakeRun) -> None:
    run = make_run(**{"tuning.trials": 5})
    assert ask(run)["trials"] == [0, 1]
    assert ask(run)["trials"] == [0, 1]  # asked, not evaluated: the same again
    record(run, 1)
    assert ask(run)["trials"] == [0]
    record(run, 0)
    assert ask(run)["trials"] == [2, 3]
    play(run)
    assert ask(run)["trials"] == []
    trials = TrialHistory(run).trials()
    assert [trial.seen for trial in trials] == [(), (), (0, 1), (0, 1), (0, 1, 2, 3)]
    assert len({json.dumps(trial.draws) for trial in trials}) == 5


def test_stopping_and_resuming_gives_the_trials_of_not_stopping(make_run: MakeRun) -> None:
    whole, stopped, backwards = make_run("whole"), make_run("stopped"), make_run("backwards")
    play(whole)
    for _ in range(6):
        play(stopped, rounds=1)
        ask(stopped)  # and stopped after asking
    play(backwards, backwards=True)  # the neighbour was quicker
    assert len(draws(whole)) == 10
    assert draws(whole) == draws(stopped) == draws(backwards)
    assert tell(whole)["best"] == tell(stopped)["best"]


def test_a_round_that_was_only_partly_asked_is_completed_as_it_would_have_been(make_run: MakeRun) -> None:
    whole, torn = make_run("whole"), make_run("torn")
    play(whole)
    play(torn, rounds=3)
    ask(torn)
    torn.store.delete([f"{torn.prefix}/tune-trials/000007-00.json"])  # the asker died between its two writes
    assert ask(torn)["trials"] == [6, 7]
    play(torn)
    assert draws(whole) == draws(torn)


def test_failed_trials_count_and_do_not_vanish(make_run: MakeRun) -> None:
    run = make_run()
    play(run)
    told = tell(run)
    assert told["trials"] == 10 and told["failed"] == 1
    assert told["history"][3]["status"] == "failed" and told["history"][3]["loss"] is None


def test_the_best_values_are_plain_python_and_fit_the_ranker(make_run: MakeRun) -> None:
    run = make_run()
    play(run)
    told = tell(run)
    assert told["loss"] == min(entry["loss"] for entry in told["history"] if entry["loss"] is not None)
    assert type(told["best"]["training.learning_rate"]) is float and told["best"]["training.batch_size"] in (
        8,
        16,
    )
    assert json.loads(json.dumps(told)) == told
    assert (
        run.ranker.with_values(told["best"]).training.learning_rate == told["best"]["training.learning_rate"]
    )


def test_no_trial_starts_after_the_time_is_over(make_run: MakeRun) -> None:
    run = make_run(**{"tuning.max_minutes": 0.05})  # three seconds; each round counts one
    play(run)
    assert len(draws(run)) == 6
    told = tell(run)
    assert (told["trials"], told["ended"], told["minutes"]) == (6, "tuning.max_minutes", 0.05)


def test_tuning_that_tried_every_point_says_so(make_run: MakeRun) -> None:
    run = make_run(**{"tuning.space": {"training.batch_size": {"choice": [8, 16]}}})
    for _ in range(9):
        for identifier in ask(run)["trials"]:
            trial = TrialHistory(run).trial(identifier)
            done = {"status": Status.DONE, "loss": float(trial.values["training.batch_size"]), "seconds": 1.0}
            TrialHistory(run).update(trial.model_copy(update=done))
    told = tell(run)
    assert (told["trials"], told["ended"], told["best"]) == (2, "tuning.space", {"training.batch_size": 8})


def test_without_trials_there_is_nothing_to_tell(make_run: MakeRun) -> None:
    run = make_run(**{"tuning.trials": 0})
    assert ask(run)["trials"] == []
    assert tell(run)["best"] == {}


def test_tuning_without_a_success_says_why(make_run: MakeRun) -> None:
    run = make_run(**{"tuning.trials": 2})
    for identifier in ask(run)["trials"]:
        record(run, identifier, failed=True)
    with pytest.raises(TryAgainError, match="no tuning trial succeeded"):
        tell(run)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tuning.space": {"examples.hard_negatives": {"choice": [1, 2]}}}, "adversarial) or model.layers"),
        ({"tuning.latency_weight": 0.1}, "all trials would be equally fast"),
        ({"tuning.space": {"training.learning_rte": {"uniform": [0.1, 0.2]}}}, "learning_rte"),
        ({"tuning.space": {"training.learning_rate": {"loguniform": [0, 0.1]}}}, "learning_rate"),
        ({"tuning.space": {"training.warmup_share": {"uniform": [0.3, 0.1]}}}, "low < high"),
    ],
    ids=["not of training", "all equally fast", "unknown key", "zero under a logarithm", "upside down"],
)
def test_a_space_that_cannot_be_tuned_is_refused(
    make_run: MakeRun, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ask(make_run(**values))
    assert message in str(caught.value)


def test_a_trial_that_was_never_asked_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ConfigurationError, match="there is no trial 7"):
        evaluate(make_run(), 7)


def night(make_run, day: int, **values: object):
    run = make_run(day=day, **{"tuning.trials": 4, **values})
    play(run)
    tell(run)
    return run


def test_tonight_begins_with_the_best_of_the_newest_night_and_models_all(make_run: MakeRun) -> None:
    first, second = night(make_run, 20), night(make_run, 21)
    tonight = make_run(day=22, **{"tuning.trials": 4})
    assert ask(tonight)["trials"] == [0, 1]
    learned = past(tonight)
    assert learned.nights == ("2011-08-20", "2011-08-21") and len(learned.observed) == 8
    assert TrialHistory(tonight).trial(0).values == tell(second)["best"]
    assert (
        TrialHistory(tonight).trial(1).draws != TrialHistory(first).trial(1).draws
    )  # no random beginning: it is modelled


def test_a_night_learns_neither_from_its_future_nor_from_another_space(make_run: MakeRun) -> None:
    night(make_run, 25)
    night(make_run, 20, **{"tuning.budget_share": 0.25})
    night(make_run, 19, **{"tuning.rate_exponent": 0.3})
    backfill = make_run(day=22)
    ask(backfill)
    assert past(backfill).nights == ()


def test_what_the_first_ask_saw_stays_whatever_is_closed_later(make_run: MakeRun) -> None:
    night(make_run, 20)
    calm, stirred = make_run(day=22, **{"tuning.seed": 1}), make_run(day=22, **{"tuning.seed": 1})
    ask(calm)
    seen = past(calm)
    late = night(make_run, 21)
    ask(stirred)
    assert past(stirred) == seen
    remember(late, TrialHistory(late).trials())  # told again: the same document
    play(calm)
    assert past(calm) == seen and tell(calm)["nights"] == ["2011-08-20"]


def test_nights_limits_how_far_back(make_run: MakeRun) -> None:
    for day in (18, 19, 20):
        night(make_run, day)
    few, none = make_run(day=22, **{"tuning.nights": 2}), make_run(day=22, **{"tuning.nights": 0})
    assert past(few).nights == ("2011-08-19", "2011-08-20")
    assert past(none).nights == () and past(none).best is None


def test_losses_are_distances_from_the_best_of_their_own_night() -> None:
    def trial(number: int, loss: float | None, status: Status = Status.DONE) -> Trial:
        return Trial(id=number, share=1, draws={"x": number}, values={}, loss=loss, status=status)

    found = observations(
        [trial(2, 5.0), trial(0, 4.0), trial(1, None, Status.FAILED), trial(3, None, Status.STOPPED)]
    )
    assert [observation.loss for observation in found] == [0.0, None, 0.25]


@pytest.mark.slow
def test_real_tuning_trains_its_trials_side_by_side_and_training_takes_the_best(
    make_run: MakeRun, write_examples: Callable[..., Path]
) -> None:
    from reshelve.training.launch import train

    run = make_run(
        **{"tuning.trials": 2, "tuning.space": {"training.learning_rate": {"choice": [1e-3, 1.0, 1e-2]}}}
    )
    write_examples(run.stage("examples").directory)
    run.stage("examples").commit({"train": 160})
    told = run_stage(run, "tune", tune)
    assert told["trials"] == 2 and told["loss"] == min(
        e["loss"] for e in told["history"] if e["loss"] is not None
    )
    evaluated = evaluate(run, 0)
    assert evaluated["loss"] == told["history"][0]["loss"]  # evaluating an evaluated trial does nothing
    assert not list(run.stage("tune").directory.glob(".trial-*"))
    result = run_stage(run, "train", train)
    assert result["values"] == told["best"]


@pytest.mark.slow
def test_a_trial_trains_with_its_rates_carried_over_to_its_share(
    make_run: MakeRun, write_examples: Callable[..., Path]
) -> None:
    def loss(rate: float, exponent: float) -> float:
        values = {"training.learning_rate": rate, "training.head_learning_rate": rate}
        # 0.25^-0.5 is 2: half the rate, doubled, is the same training to the last bit.
        more = {"tuning.budget_share": 0.25, "tuning.rate_exponent": exponent, "tuning.trials": 1}
        space = {"training.batch_size": {"choice": [8, 16]}}
        run = make_run(f"rate_{exponent}".replace(".", ""), **values, **more, **{"tuning.space": space})
        write_examples(run.stage("examples").directory)
        run.stage("examples").commit({"train": 160})
        [trial] = ask(run)["trials"]
        evaluated = evaluate(run, trial)
        assert set(evaluated["values"]) == {"training.batch_size"}  # what is told is for a full training
        return float(evaluated["loss"])

    assert loss(1e-3, 0.5) == loss(2e-3, 0.0)


@pytest.mark.slow
def test_halving_latency_and_a_hard_stop_on_real_training(
    make_run: MakeRun, write_examples: Callable[..., Path]
) -> None:
    space = {"training.learning_rate": {"choice": [1e-3, 1e-2]}, "model.layers": {"choice": [1, 2]}}
    values = {"tuning.space": space, "tuning.trials": 2, "tuning.latency_weight": 0.5}
    run = make_run(
        **values, **{"tuning.halving": {"eta": 2, "min_share": 0.25}, "tuning.price_per_hour": 3.6}
    )
    write_examples(run.stage("examples").directory)
    run.stage("examples").commit({"train": 160})
    told = run_stage(run, "tune", tune)
    assert [entry["rung"] for entry in told["history"]] in ([0, 1, 0], [0, 0, 1])
    for entry in told["history"]:
        assert entry["latency_ms"] > 0
        assert entry["loss"] == pytest.approx(entry["validation_loss"] + 0.5 * entry["latency_ms"])
    measured = list(run.store.list(f"{run.prefix}/tune-latency/"))
    assert len(measured) == len({entry["values"]["model.layers"] for entry in told["history"]})
    assert told["cost"] == pytest.approx(sum(e["seconds"] for e in told["history"]) / 1000, abs=1e-3)
    poor = make_run("poor", **{"tuning.trials": 2, "tuning.price_per_hour": 3600.0, "tuning.max_cost": 4.0})
    write_examples(poor.stage("examples").directory)
    poor.stage("examples").commit({"train": 160})
    assert ask(poor)["trials"] == [0, 1]
    stopped = evaluate(poor, 0)  # two seconds are its half of the money: less than its workers need to start
    assert (stopped["status"], stopped["reason"]) == ("stopped", "tuning.max_cost")
    assert stopped["seconds"] < 8
    evaluate(poor, 1)
    ended = tell(poor)
    assert (ended["best"], ended["ended"], ended["stopped"]) == ({}, "tuning.max_cost", 2)


def test_a_trial_that_was_stopped_by_a_key_of_another_name_ends_tuning(make_run: MakeRun) -> None:
    run = make_run()
    history = TrialHistory(run)
    for identifier in ask(run)["trials"]:
        stopped = {"status": Status.STOPPED, "reason": "search.max_minutes"}
        history.update(history.trial(identifier).model_copy(update=stopped))
    told = tell(run)
    assert (told["best"], told["ended"]) == ({}, "tuning.max_minutes")


def test_only_who_asks_for_new_trials_waits_for_hyperopt() -> None:
    check = "import sys, reshelve.tuning.tune; sys.exit('hyperopt' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
