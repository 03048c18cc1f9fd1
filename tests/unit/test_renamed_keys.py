"""A section of the ranker file that had another name is read by both, and by one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reshelve.config.ranker import place_of, read_ranker
from reshelve.errors import ConfigurationError
from reshelve.verbs.options import overrides

FILE = """\
name: shelf
title: A shelf
kind: next_item
data:
  source: retail
gates:
  metric: recall@20
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A ranker file that a test completes."""
    path = tmp_path / "shelf.yaml"
    path.write_text(FILE)
    return path


def test_a_file_with_the_old_name_means_the_same_and_is_warned_of_once(shelf: Path) -> None:
    shelf.write_text(f"{FILE}tuning:\n  trials: 7\n")
    with capture_logs() as said:
        new = read_ranker("shelf", directory=shelf.parent)
    assert new.tuning.trials == 7 and said == []
    shelf.write_text(f"{FILE}search:\n  trials: 7\n")
    with capture_logs() as said:
        old = [read_ranker("shelf", directory=shelf.parent) for _ in range(2)]
    assert old == [new, new] and old[0].digest() == new.digest()
    [warning] = said
    assert warning["log_level"] == "warning" and warning["place"] == f"{shelf}:8"
    assert warning["event"].startswith("search is called tuning now")
    assert place_of("shelf", "tuning.trials", shelf.parent) == f"{shelf}:9"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("tuning: {trials: 4}\nsearch: {trials: 3}\n", r"shelf\.yaml:9: search: it is called tuning now"),
        ("search:\n  seed: 5\n  trials: lots\n", r"shelf\.yaml:10: tuning\.trials: .*integer"),
        ("search:\n  latency_weight: 1\n", r"shelf\.yaml:9: tuning\.latency_weight: all trials"),
    ],
    ids=["both", "a wrong value", "a value that does not fit others"],
)
def test_what_is_wrong_below_the_old_name_has_its_line(shelf: Path, more: str, said: str) -> None:
    shelf.write_text(FILE + more)
    with pytest.raises(ConfigurationError, match=said):
        read_ranker("shelf", directory=shelf.parent)


def test_an_override_by_the_old_name_is_one_of_the_new(shelf: Path) -> None:
    with capture_logs() as said:
        values = overrides(["search.price_per_hour=3", "training.epochs=2"])
    assert values == {"tuning.price_per_hour": 3, "training.epochs": 2}
    assert [entry["event"].split(":")[0] for entry in said] == [
        "search.price_per_hour is called tuning.price_per_hour now"
    ]
    # A night that was pinned keeps what it was given, by the name of its day.
    pinned = read_ranker("shelf", {"search.trials": 9}, shelf.parent)
    assert pinned.tuning.trials == 9


def test_an_override_by_both_names_is_refused(shelf: Path) -> None:
    both = "search.trials is called tuning.trials now, and both are given"
    with pytest.raises(ConfigurationError, match=both):
        overrides(["search.trials=3", "tuning.trials=4"])
    with pytest.raises(ConfigurationError, match=both):
        read_ranker("shelf", {"tuning.trials": 4, "search.trials": 3}, shelf.parent)
