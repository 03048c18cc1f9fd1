"""Waves, halving, and the promise that stopping changes nothing: all of it pure, so tried at every point."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.config.tuning import Tuning
from reshelve.config.waves import rungs, wave_count, waves, width
from reshelve.errors import ConfigurationError
from reshelve.pipeline.references import load_ranker
from reshelve.tuning.budget import left
from reshelve.tuning.past_nights import PastNights, best_of
from reshelve.tuning.standing import elapsed, standing
from reshelve.tuning.trial import Status, Trial
from reshelve.tuning.tune import proposals

SPACE = {"training.learning_rate": {"loguniform": [1e-5, 1e-1]}, "training.batch_size": {"choice": [8, 16]}}


def form(**values: object) -> Tuning:
    return Tuning.model_validate({"trials": 12, "parallel": 2, "budget_share": 0.9, "space": SPACE, **values})


HALVING = {"eta": 3, "min_share": 0.1}


def ended(trial: Trial) -> Trial:
    """A trial's end as a function of its values: lower at a larger budget, and every seventh fails."""
    if trial.id % 7 == 6:
        return trial.model_copy(update={"status": Status.FAILED, "reason": "diverged", "seconds": 1.0})
    loss = abs(math.log10(trial.values["training.learning_rate"]) + 3) + 1 - trial.share
    return trial.model_copy(update={"status": Status.DONE, "loss": loss, "seconds": 1.0 + trial.id})


def played(tuning: Tuning) -> list[Trial]:
    trials: list[Trial] = []
    while at := standing(tuning, trials):
        trials += [ended(trial) for trial in proposals(tuning, PastNights(), at, trials)]
    return trials


def test_without_halving_tuning_is_waves_of_new_trials() -> None:
    tuning = form(trials=5)
    assert rungs(tuning) == (0.9,)
    assert [(wave.rung, wave.first, wave.last, wave.bracket.start) for wave in waves(tuning)] == [
        (0, 0, 2, 0),
        (0, 0, 2, 2),
        (0, 0, 1, 4),
    ]


def test_a_bracket_leaves_one_at_the_top_and_only_the_best_go_on() -> None:
    tuning = form(parallel=3, trials=9, halving=HALVING)
    assert rungs(tuning) == pytest.approx((0.1, 0.3, 0.9))
    trials = played(tuning)
    by_rung = [[trial for trial in trials if trial.rung == rung] for rung in range(3)]
    assert [len(rung) for rung in by_rung] == [9, 3, 1]
    best = sorted((t for t in by_rung[0] if t.loss is not None), key=lambda t: t.loss)[:3]
    assert {trial.id for trial in by_rung[1]} == {trial.id for trial in best}
    assert by_rung[2][0].values == next(t for t in best if t.id == by_rung[2][0].id).values
    winner = best_of(trials)
    assert winner is not None and winner.rung == 2  # not a lower loss of another budget


def test_several_finalists_are_trained_in_full() -> None:
    halving = {"eta": 10, "min_share": 0.09, "bracket": 8, "finalists": 3}
    trials = played(form(parallel=2, trials=16, halving=halving))
    for bracket in (range(8), range(8, 16)):
        small, large = ([t for t in trials if t.id in bracket and t.rung == rung] for rung in (0, 1))
        assert [trial.share for trial in small] == pytest.approx([0.09] * 8)
        assert {trial.share for trial in large} == {0.9}
        best = sorted((t for t in small if t.loss is not None), key=lambda t: t.loss)[:3]
        assert [trial.id for trial in large] == [trial.id for trial in best]


@pytest.mark.parametrize(
    "halving", [None, {"eta": 2, "min_share": 0.2, "bracket": 2}], ids=["plain", "halving"]
)
@pytest.mark.parametrize("parallel", [1, 3])
def test_a_space_that_can_be_counted_is_tried_point_by_point_and_then_over(
    parallel: int, halving: dict[str, object] | None
) -> None:
    space = {"training.batch_size": {"choice": [8, 16]}, "training.accumulate": {"choice": [1, 2]}}
    for seed in range(5):
        tuning = form(trials=8, parallel=parallel, space=space, halving=halving, seed=seed)
        trials: list[Trial] = []
        while at := standing(tuning, trials):
            asked = proposals(tuning, PastNights(), at, trials)
            # A wave of which a part was written goes on with the same points.
            assert proposals(tuning, PastNights(), at, [*trials, *asked[1:]]) == asked[:1]
            assert proposals(tuning, PastNights(), at, [*trials, *asked[:1]]) == asked[1:]
            done = {"status": Status.DONE, "seconds": 1.0}
            trials += [trial.model_copy(update={**done, "loss": trial.id % 3}) for trial in asked]
        tried = [tuple(trial.values[path] for path in space) for trial in trials if trial.rung == 0]
        assert sorted(tried) == [(8, 1), (8, 2), (16, 1), (16, 2)]


def test_failed_trials_are_not_promoted_and_an_empty_wave_is_passed_over() -> None:
    tuning = form(trials=3, parallel=3, halving={"eta": 3, "min_share": 0.3})
    at = standing(tuning, [])
    assert at is not None
    failed = [t.model_copy(update={"status": Status.FAILED}) for t in proposals(tuning, PastNights(), at, [])]
    assert standing(tuning, failed) is None


@given(
    trials=st.integers(1, 20),
    parallel=st.integers(1, 5),
    eta=st.integers(2, 4),
    least=st.sampled_from([0.1, 0.3, 0.9]),
    bracket=st.none() | st.integers(1, 12),
    finalists=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_all_tuning_ends_within_its_waves(
    trials: int, parallel: int, eta: int, least: float, bracket: int | None, finalists: int
) -> None:
    halving = {"eta": eta, "min_share": least, "bracket": bracket, "finalists": finalists}
    tuning = form(trials=trials, parallel=parallel, halving=halving)
    done: list[Trial] = []
    for _ in range(wave_count(tuning)):
        at = standing(tuning, done)
        if at is None:
            break
        assert 0 < len(at.ids) <= parallel
        done += [
            Trial(
                id=i,
                rung=at.wave.rung,
                share=0.1,
                draws={},
                values={},
                status=Status.DONE,
                loss=i * 7 % 5,
                seconds=2,
            )
            for i in at.ids
        ]
    assert standing(tuning, done) is None
    assert {trial.id for trial in done} == set(range(trials))
    assert elapsed(tuning, done) <= 2 * wave_count(tuning)
    rounds = max(1, wave_count(tuning) // 2)
    wider = width(tuning, rounds)
    assert wider == 64 or wave_count(tuning.model_copy(update={"parallel": wider})) <= rounds


@pytest.fixture(scope="module")
def whole() -> list[Trial]:
    return played(form(halving=HALVING))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_tuning_stopped_anywhere_goes_on_with_the_same_trials(
    whole: list[Trial], data: st.DataObject
) -> None:
    """Any part of a wave may be written, any part of that evaluated, in any order, when the process dies."""
    tuning = form(halving=HALVING)
    ahead = {(trial.id, trial.rung): trial for trial in whole}
    full = data.draw(st.integers(0, wave_count(tuning) - 1), label="whole waves")
    known: list[Trial] = []
    for _ in range(full):
        if at := standing(tuning, known):
            known += [ahead[identifier, at.wave.rung] for identifier in at.ids]
    if at := standing(tuning, known):
        asked = proposals(tuning, PastNights(), at, known)
        written = data.draw(st.lists(st.sampled_from(asked), unique_by=lambda t: t.id), label="written")
        evaluated = data.draw(st.lists(st.booleans(), min_size=len(written), max_size=len(written)))
        known += [ended(t) if done else t for t, done in zip(written, evaluated, strict=True)]
    while at := standing(tuning, known):
        known += proposals(tuning, PastNights(), at, known)
        known = [ended(trial) if trial.status is Status.ASKED else trial for trial in known]
    assert sorted(known, key=lambda t: (t.id, t.rung)) == sorted(whole, key=lambda t: (t.id, t.rung))


def test_money_is_shared_by_the_trials_of_a_wave_and_minutes_are_not() -> None:
    tuning = form(max_minutes=10, price_per_hour=6.0, max_cost=0.5)
    at = standing(tuning, [])
    assert at is not None
    assert left(tuning, at).limit == "tuning.max_cost"
    assert left(tuning, at).seconds == pytest.approx(0.5 / 6 * 3600 / 2)
    spent = [ended(t).model_copy(update={"seconds": 100.0}) for t in proposals(tuning, PastNights(), at, [])]
    after = standing(tuning, spent)
    assert after is not None
    assert left(tuning, after).seconds == pytest.approx((0.5 / 6 * 3600 - 200) / 2)
    free = form(max_minutes=10)
    assert (left(free, after).limit, left(free, after).seconds) == ("tuning.max_minutes", 500.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tuning.max_cost": 1.0}, "needs price_per_hour"),
        ({"tuning.halving": {"min_share": 0.5}}, "more than budget_share"),
    ],
    ids=["no price", "halves nothing"],
)
def test_budgets_that_do_not_fit_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_ranker("recommend", values)
    assert message in str(caught.value)
