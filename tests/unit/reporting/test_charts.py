"""Drawings: no word covers another or leaves the picture, numbers are people's, and a range can be seen to end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations
from xml.etree import ElementTree

import pytest

from reshelve.charts import ForestRow, curves, forest, partitions
from reshelve.config.tuning import Choice, LogUniform, Uniform
from reshelve.reporting.trials_chart import axes_of, axis_of, parallel

_WIDE = 0.55  # of a letter's height: the average width of a letter


@dataclass(frozen=True)
class Word:
    """A text of a drawing with the box that it fills, in points."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def covers(self, other: Word) -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.5
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.5
        )


def words(svg: str) -> tuple[list[Word], float]:
    """All level texts of an SVG, and its width."""
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:x="http://www.w3.org/1999/xlink" ', 1))
    found = []
    for node in root.iter():
        style = node.get("style", "")
        size = re.search(r"font(?:-size)?:[^;]*?([\d.]+)px", style)
        turned = re.search(r"rotate\((-?[\d.]+)", node.get("transform", ""))
        if not node.tag.endswith("text") or size is None or (turned and abs(float(turned[1])) > 1):
            continue
        moved = re.search(r"translate\(([-\d.]+)[ ,]+([-\d.]+)\)", node.get("transform", ""))
        x, y = (
            (float(moved[1]), float(moved[2]))
            if moved
            else (float(node.get("x", 0)), float(node.get("y", 0)))
        )
        anchor = re.search(r"text-anchor: (\w+)", style)
        text, height = "".join(node.itertext()), float(size[1])
        width = _WIDE * height * len(text)
        left = x - {"middle": width / 2, "end": width}.get(anchor[1] if anchor else "", 0.0)
        found.append(Word(text, left, left + width, y - 0.75 * height, y))
    return found, float(root.get("viewBox", "").split()[2])


def assert_legible(svg: str) -> list[str]:
    """No word over another, none cut, no exponent; the texts."""
    found, width = words(str(svg))
    assert found
    for one, other in combinations(found, 2):
        assert not one.covers(other), (one, other)
    for word in found:
        assert word.left > -2 and word.right < width + 2, (word, width)
        assert not re.search(r"\de[+−-]?\d", word.text), word
    return [word.text for word in found]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("tolerance", [0.0, 0.002, 0.005, 0.02, 0.2])
@pytest.mark.parametrize("spread", [0.004, 0.05, 0.6])
def test_names_of_bounds_do_not_cover_each_other(tolerance: float, spread: float, wide: bool) -> None:
    rows = [
        ForestRow(f"− {name}", place * spread, (place - 0.3) * spread, (place + 0.3) * spread)
        for name, place in (("champion", 0.1), ("popularity", 0.9), ("BM25", 0.7), ("chosen together", -0.4))
    ]
    said = assert_legible(
        forest("differences", rows, "ndcg@10", [(0.0, "equal"), (-tolerance, "tolerance")], wide)
    )
    assert {"equal", "tolerance"} <= set(said)


def test_a_large_day_is_counted_in_full() -> None:
    days = [date(2011, 8, 1) + timedelta(days=n) for n in range(30)]
    said = assert_legible(partitions(days, [2_000_000 + n for n in range(30)], [40_000] * 30))
    assert "2,000,000" in said
    points = [{"step": 100_000 * n, "loss": 1e-5 * (n + 1), "validation_loss": 1e-5 * n} for n in range(20)]
    assert_legible(curves(points, "recall@20"))


RATE = LogUniform(loguniform=(1e-6, 1e-2))
SPACES = {
    "training.learning_rate": RATE,
    "training.weight_decay": Uniform(uniform=(0.0, 0.3)),
    "training.batch_size": Choice(choice=(16, 32, 64, 128)),
    "model.pooling": Choice(choice=("mean", "cls")),
}


def test_an_axis_is_as_long_as_the_ranker_files_range() -> None:
    axis = axis_of([1e-4, 1e-3], RATE)
    assert axis.heights == pytest.approx([0.5, 0.75])
    assert axis.marks == [(0.0, "0.000001"), (1.0, "0.01")]
    assert not axis.at_edge(0)
    axis = axis_of([0.1, 0.3, 0.0], SPACES["training.weight_decay"])
    assert axis.heights == pytest.approx([1 / 3, 1, 0])
    assert [axis.at_edge(trial) for trial in range(3)] == [False, True, True]
    axis = axis_of([32, 64], SPACES["training.batch_size"])
    assert axis.heights == pytest.approx([1 / 3, 2 / 3]), "choices that no trial took are there too"
    assert [text for _, text in axis.marks] == ["16", "32", "64", "128"]
    assert not axis.at_edge(0)
    assert not axis_of([0.2, 0.4], None).at_edge(0), "the loss has no range that could be widened"


def test_a_value_beyond_the_range_is_on_its_axis() -> None:
    axis = axis_of([0.5, 0.1], SPACES["training.weight_decay"])
    assert axis.heights == pytest.approx([1, 0.2])


@pytest.mark.parametrize("keys", [2, 4, 7, 9])
def test_a_search_over_many_keys_is_legible(keys: int) -> None:
    space = dict(SPACES) | {f"training.a_rather_long_key_{n}": RATE for n in range(5)}
    space["examples.alternatives"] = Choice(choice=tuple(f"a rather long choice {n}" for n in range(30)))
    chosen = dict(list(space.items())[::-1][:keys])
    columns = {
        name: [form.values[0], form.values[-1]] if isinstance(form, Choice) else [1e-5, 1e-4]
        for name, form in chosen.items()
    }
    said = assert_legible(parallel(axes_of(columns, [1.0, 2.0], chosen), [1.0, 2.0], 0))
    assert "loss" in said


def test_keys_of_one_last_part_stay_apart() -> None:
    columns = {"training.rate": [1.0, 2.0], "memory.rate": [1.0, 2.0], "model.dropout": [0.1, 0.2]}
    assert list(axes_of(columns, [1.0, 2.0], {})) == ["training.rate", "memory.rate", "dropout", "loss"]
