"""What a night will take, from what nights took."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.config.ranker import Ranker
from reshelve.pipeline.estimate import estimate
from reshelve.pipeline.past_nights import PastNight

STAGES = ("examples", "tune", "train", "compress", "package", "gate", "publish")


def ranker(**values: object) -> Ranker:
    found = Ranker.model_validate(
        {"name": "shelf", "title": "A shelf", "kind": "next_item", "data": {"source": "shop"},
         "training": {"epochs": 2, "max_minutes": 10},
         "tuning": {"trials": 4, "parallel": 2, "budget_share": 0.25, "max_minutes": 3,
                    "space": {"training.learning_rate": {"loguniform": [1e-5, 1e-3]}}},
         "gates": {"metric": "recall@5"}}
    )  # fmt: skip
    return found.with_values(values) if values else found


NIGHT = PastNight(
    stages={"examples": 8.0, "tune": 1.0, "train": 110.0, "gate": 20.0},
    trial_seconds_per_epoch=40.0,
    training_seconds=100.0,
    training_examples=2000,
    examples=1000,
)

seconds = st.floats(0.1, 1e5)
nights = st.lists(
    st.builds(
        PastNight,
        stages=st.dictionaries(st.sampled_from(STAGES), seconds),
        trial_seconds_per_epoch=st.none() | seconds,
        training_seconds=st.none() | seconds,
        training_examples=st.none() | st.integers(0, 10**7),
        examples=st.none() | st.integers(0, 10**6),
    ),
    max_size=6,
)


def test_a_night_like_the_last_takes_as_long() -> None:
    assert estimate("examples", ranker(), [NIGHT], None).seconds == 8
    assert estimate("train", ranker(), [NIGHT], 1000).seconds == pytest.approx(110)
    # Two waves of two trials, each a quarter of two epochs, at 40 s an epoch.
    assert estimate("tune", ranker(), [NIGHT], None).seconds == pytest.approx(2 * 0.25 * 2 * 40)


def test_a_short_trial_takes_what_every_trial_takes_beside_its_steps() -> None:
    def night(*trials: tuple[float, float, float | None]) -> PastNight:
        history = [
            {"status": "done", "share": share, "seconds": seconds, "step_seconds": steps}
            for share, seconds, steps in trials
        ]
        tune = {"history": history, "trial_epochs": sum(share for share, _, _ in trials) * 2}
        train = {"seconds": 115.0, "training_seconds": 100.0, "examples": 2000}
        return PastNight.of({"examples": {"train": 1000}, "tune": tune, "train": train})

    # A trial takes 15 s and 40 s an epoch; a fortieth of two epochs, then, 17 s, and not a tenth of what a quarter took.
    short = ranker(**{"tuning.budget_share": 0.025})
    for past in (
        night((0.25, 35.0, 20.0), (0.25, 35.0, 20.0)),
        night((0.25, 35.0, None), (0.25, 35.0, None)),
    ):
        assert estimate("tune", ranker(), [past], 1000).seconds == pytest.approx(2 * 35)
        assert estimate("tune", short, [past], 1000).seconds == pytest.approx(2 * 17)
        assert estimate("tune", short, [past], 500).seconds == pytest.approx(2 * 16), "half of the examples"
    quick = night((0.25, 6.0, None), (0.25, 8.0, None))  # quicker than its training was beside the steps
    assert estimate("tune", short, [quick], 1000).seconds == pytest.approx(2 * (6 + 0.1))


def test_training_is_scaled_to_tonight_and_ends_at_its_limit() -> None:
    more = ranker(**{"training.epochs": 4})
    assert estimate("train", more, [NIGHT], 1000).seconds == pytest.approx(10 + 200)
    assert estimate("train", more, [NIGHT], 10**6).seconds == pytest.approx(10 + 600), "training.max_minutes"
    fewer = ranker(**{"examples.max_examples": 500})
    assert estimate("train", fewer, [NIGHT], None).seconds == pytest.approx(10 + 50)


def test_what_no_night_tells_is_not_known() -> None:
    assert estimate("package", ranker(), [NIGHT], None).seconds is None
    assert estimate("train", ranker(), [replace(NIGHT, training_examples=0)], None).seconds is None
    assert estimate("tune", ranker(**{"tuning.trials": 0}), [], None).seconds == 0


@given(nights=nights, stage=st.sampled_from(STAGES), examples=st.none() | st.integers(0, 10**6))
def test_an_estimate_lies_within_what_the_nights_say(
    nights: list[PastNight], stage: str, examples: int | None
) -> None:
    found = estimate(stage, ranker(), nights, examples)
    if found.seconds is None:
        assert found.nights == 0
        return
    assert found.low is not None and found.high is not None
    assert 0 <= found.low <= found.seconds <= found.high
    if stage == "tune":
        assert found.high <= 3 * 60 + 1e-6, "tuning.max_minutes"
    if stage == "train":
        beside = [night.stages.get("train", 0.0) for night in nights]
        assert found.high <= max(beside) + 10 * 60 + 1e-6, "training.max_minutes"


@settings(max_examples=40)
@given(nights=nights, epochs=st.floats(0.1, 50), trials=st.integers(1, 30))
def test_more_is_never_quicker(nights: list[PastNight], epochs: float, trials: int) -> None:
    for stage, less, more in (
        ("train", {"training.epochs": epochs}, {"training.epochs": epochs * 2}),
        ("tune", {"tuning.trials": trials}, {"tuning.trials": trials + 1}),
        ("tune", {"training.epochs": epochs}, {"training.epochs": epochs * 2}),
    ):
        one = estimate(stage, ranker(**less), nights, 1000).seconds
        other = estimate(stage, ranker(**more), nights, 1000).seconds
        assert (one is None) == (other is None)
        assert one is None or other is None or one <= other + 1e-9
