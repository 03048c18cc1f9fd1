"""What the gate says of a version that has another's model and a newer product list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from reshelve.evaluation.judgement import CHAMPION
from reshelve.evaluation.refreshed import MOST_MOVED, _judged, _missed, _moved
from reshelve.examples.changed_catalogue import CatalogueChange

ITEMS, OLD_TITLES, EVENTS = ["a", "b", "c", "d"], ["red mug", "blue mug", "c", "lamp"], [9, 5, 2, 0]


def change(products: Mapping[str, str | None], by_demand: bool = True) -> CatalogueChange:
    return CatalogueChange.of(ITEMS, OLD_TITLES, EVENTS, products, by_demand=by_demand)


class Told:
    """What two versions answer, by the test."""

    def __init__(self, before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> None:
        self._said = {True: before, False: after}

    def answers(self, servable: str, texts: Sequence[str]) -> list[tuple[list[str], np.ndarray, list[str]]]:
        said = [self._said[servable == CHAMPION][text] for text in texts]
        return [([*one], np.array([*one.values()]), [f"title of {item}" for item in one]) for one in said]

    def scores(self, servable: str, query: str, items: Sequence[str]) -> np.ndarray:
        return np.array([self._said[servable == CHAMPION][query][item] for item in items])


def test_a_catalogue_changes_by_the_whole_list() -> None:
    found = change({"n": "lamp", "b": "navy mug", "a": "red mug", "c": None, "u": None})
    assert found.items == ["a", "b", "c", "n", "u"] and found.events == [9, 5, 2, 0, 0]
    assert found.titles == ["red mug", "navy mug", "c", "lamp", "u"]
    assert found.read == ["red mug", "navy mug", "", "lamp", ""]
    assert found.were.tolist() == [0, 1, 2, -1, -1] and found.removed == ["d"]
    assert found.counts() == {"added": 2, "removed": 1, "retitled": 1} and found.is_one
    same = dict(zip(ITEMS, OLD_TITLES, strict=True))
    assert not change(same).is_one and change(same).items == ITEMS
    assert change({"d": "lamp", "a": "red mug", "b": "blue mug", "c": "c"}, by_demand=False).items == ITEMS


def test_an_answer_is_compared_where_what_was_meant_stays() -> None:
    """d goes: an answer that was mostly d's says nothing, one that was a little d's is compared among the others."""
    now = change({"a": "red mug", "b": "blue mug", "c": None, "n": "new"})
    before = {
        "mug": {"a": 0.6, "b": 0.395, "d": 0.005}, "lamp": {"d": 0.9, "a": 0.05, "b": 0.05}, "one": {"a": 0.9},
    }  # fmt: skip
    after = {
        "mug": {"a": 0.3, "b": 0.1975, "n": 0.5}, "lamp": {"a": 0.1, "b": 0.9}, "one": {"a": 0.1, "n": 0.9},
    }  # fmt: skip
    assert _moved(Told(before, after), now, ["mug", "lamp", "one"]) == [pytest.approx(0.0, abs=1e-9)]  # type: ignore[arg-type]
    after["mug"] = {"a": 0.4, "b": 0.6}
    (moved,) = _moved(Told(before, after), now, ["mug"])  # type: ignore[arg-type]
    assert moved == pytest.approx(0.6 / 0.995 - 0.4)


def test_a_new_item_comes_under_its_own_title_or_another_of_that_title_does() -> None:
    now = change(
        {**dict(zip(ITEMS, OLD_TITLES, strict=True)), "n": "new", "m": "title of a", "k": "lost", "u": None}
    )
    after = {"new": {"a": 0.9, "n": 0.1}, "title of a": {"a": 1.0}, "lost": {"a": 1.0}}
    assert _missed(Told({}, after), now) == (["k"], 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moved", "asked_for", "missed", "verdict", "said"),
    [
        ([0.0, MOST_MOVED], 4, [], "promote", "2 of 4 questions"),
        ([], 0, [], "promote", "0 of 0 questions"),
        ([], 3, [], "hold", "0 of 3 questions"),
        ([0.0], 3, [], "hold", "too few answers to compare"),
        ([0.01], 1, ["k"], "hold", "their own title: k"),
        ([0.0, MOST_MOVED + 0.01], 2, [], "reject", "has moved by 0.060"),
        ([0.9], 3, ["k"], "reject", "has moved by 0.900"),
    ],
    ids=[
        "as before",
        "nothing to ask",
        "nothing to compare",
        "few",
        "not found",
        "moved",
        "moved and not found",
    ],
)
def test_the_verdict(moved: list[float], asked_for: int, missed: list[str], verdict: str, said: str) -> None:
    found = _judged(7, change({"a": "red mug", "k": "new"}), moved, missed, asked_for=asked_for, looked_for=1)
    assert found["verdict"] == verdict and found["champion"] == {"version": 7}
    assert said in "; ".join(found["reasons"])


def test_a_list_that_renames_many_items_is_held_and_one_that_only_adds_is_not() -> None:
    """Of 20 items 4 may be called something else. Where titles are drawn at random each comes under its own: that proves nothing."""
    items = [f"i{number}" for number in range(20)]
    before = [f"mug {item}" for item in items]

    def verdict(products: dict[str, str | None], moved: list[float]) -> dict[str, Any]:
        now = CatalogueChange.of(items, before, [1] * 20, products, by_demand=True)
        return _judged(7, now, moved, [], asked_for=10, looked_for=5)

    as_before: dict[str, str | None] = dict(zip(items, before, strict=True))
    added = as_before | {f"n{number}": f"lamp {number}" for number in range(200)}
    assert verdict(added, [0.01] * 10)["verdict"] == "promote"
    four, five = (as_before | {item: f"cup {item}" for item in items[:n]} for n in (4, 5))
    assert verdict(four, [0.01] * 8)["verdict"] == "promote"
    found = verdict(five, [0.01] * 8)
    assert found["verdict"] == "hold" and "5 of the 20 items that stay" in "; ".join(found["reasons"])
    shuffled = dict(zip(items, [*before[1:], before[0]], strict=True))
    found = verdict({**shuffled}, [])
    assert found["verdict"] == "hold" and "0 of 10 questions" in "; ".join(found["reasons"])
