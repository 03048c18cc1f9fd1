"""The network that weighs the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from reshelve.features.blend import HIDDEN, Blend, Lists, fit

pytestmark = pytest.mark.slow

QUESTIONS, ITEMS, FEATURES, TELLING = 3000, 10, 5, 3


def planted(seed: int = 0, sign: float = 1.0, weight: float = 1.0) -> Lists:
    """Of each list the item whose one telling feature is highest (lowest) was chosen; the others are noise."""
    random = np.random.default_rng(seed)
    features = random.normal(3.0, 5.0, (QUESTIONS, ITEMS, FEATURES)).astype(np.float32)
    best = (sign * features[..., TELLING]).argmax(1)
    chosen = np.eye(ITEMS, dtype=np.float32)[best]
    return Lists(features, chosen, np.full(QUESTIONS, weight, np.float32), np.arange(QUESTIONS).astype(str))


def blank(features: int) -> Blend:
    """Every item alike."""
    zeros = np.zeros(features, np.float32)
    of_hidden = np.zeros(HIDDEN, np.float32)
    return Blend(zeros, zeros + 1, zeros, np.zeros((features, HIDDEN), np.float32), of_hidden, of_hidden)


def numbers(blend: Blend) -> list[bytes]:
    return [
        getattr(blend, name).tobytes() for name in ("mean", "deviation", "linear", "hidden", "bias", "output")
    ]


def test_a_planted_rule_is_learnt() -> None:
    fitted, unseen = fit(planted(), seed=3), planted(seed=1)
    assert blank(FEATURES).loss(unseen) == pytest.approx(np.log(ITEMS), rel=1e-5)
    assert fitted.loss(unseen) < 0.5
    scores = fitted.scores(tf.constant(unseen.features)).numpy()
    assert (scores.argmax(1) == unseen.chosen.argmax(1)).mean() > 0.9


def test_without_what_tells_nothing_is_learnt() -> None:
    fitted = fit(planted().without(TELLING), seed=3)
    assert fitted.linear.shape == (FEATURES - 1,)
    assert fitted.loss(planted(seed=1).without(TELLING)) > 0.95 * np.log(ITEMS)


def test_a_rule_that_is_not_straight_is_learnt() -> None:
    lists = planted()
    middling = -np.abs(lists.features[..., TELLING] - 3)
    chosen = np.eye(ITEMS, dtype=np.float32)[middling.argmax(1)]
    lists = replace(lists, chosen=chosen)
    assert fit(lists, seed=3).loss(lists) < 0.8 * np.log(ITEMS)


def test_heavier_questions_decide() -> None:
    for up, down in ((1.0, 0.05), (0.05, 1.0)):
        lists = Lists.joined([planted(0, +1, up), planted(1, -1, down)])
        direction = fit(lists, seed=3)
        is_up = direction.loss(planted(2, +1)) < direction.loss(planted(2, -1))
        assert is_up == (up > down)


def test_equal_seeds_give_equal_weights() -> None:
    lists = planted()
    few = lists.of(np.arange(QUESTIONS) < 300)
    assert numbers(fit(few, seed=3)) == numbers(fit(few, seed=3)) != numbers(fit(few, seed=4))


def test_scores_are_what_the_formula_says() -> None:
    fitted = fit(planted(), seed=3)
    features = planted(seed=1).features
    features[0] *= 1000  # an odd value is clipped
    x = np.clip((features - fitted.mean) / fitted.deviation, -8, 8)
    inner = x @ fitted.hidden + fitted.bias
    expected = x @ fitted.linear + (inner / (1 + np.exp(-inner))) @ fitted.output
    assert np.allclose(fitted.scores(tf.constant(features)), expected, atol=1e-4)


def test_the_loss_counts_questions_and_choices_by_weight() -> None:
    features = np.zeros((2, 2, 1), np.float32)
    features[:, 0, 0] = 1.0
    blend = blank(1)
    blend = Blend(blend.mean, blend.deviation, np.ones(1, np.float32), blend.hidden, blend.bias, blend.output)
    first, second = (-np.log(np.exp(x) / (np.e + 1)) for x in (1, 0))
    chosen = np.array([[1, 0], [1, 2]], np.float32)
    lists = Lists(features, chosen, np.array([1, 3], np.float32), np.array(["a", "b"]))
    assert blend.loss(lists) == pytest.approx((first + 3 * first + 6 * second) / 10, rel=1e-5)


def test_a_question_whose_shortlist_misses_every_choice_is_left_out() -> None:
    lists, missed = planted(), planted(seed=1)
    missed.chosen[: QUESTIONS // 2] = 0
    joined = Lists.joined([lists, missed])
    assert len(joined.features) == len(joined.chosen) == len(joined.weights) == QUESTIONS * 3 // 2
    assert np.array_equal(joined.features[QUESTIONS:], missed.features[QUESTIONS // 2 :])


def test_a_feature_is_left_out_by_its_place() -> None:
    lists = planted()
    rest = lists.without(1)
    assert np.array_equal(rest.features, lists.features[..., [0, 2, 3, 4]])
    assert rest.chosen is lists.chosen and rest.weights is lists.weights


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    fitted = fit(planted(), seed=3)
    fitted.write(tmp_path / "blend.safetensors")
    assert numbers(Blend.read(tmp_path / "blend.safetensors")) == numbers(fitted)
    assert [path.name for path in tmp_path.iterdir()] == ["blend.safetensors"]
