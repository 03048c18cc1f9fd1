"""A ranker file is a typed form: what is wrong is named with file, line, path and expectation."""

from __future__ import annotations

from pathlib import Path

import pytest

from reshelve.errors import ConfigurationError
from reshelve.rankers import Ranker, load_ranker, ranker_names

MINIMAL = """\
name: shelf
title: A shelf
kind: next_item
data:
  source: retail
gates:
  metric: recall@20
"""


@pytest.fixture
def rankers(tmp_path: Path) -> Path:
    (tmp_path / "shelf.yaml").write_text(MINIMAL)
    return tmp_path


def test_every_ranker_file_of_the_project_loads() -> None:
    assert {"recommend", "search"} <= set(ranker_names())
    for name in ranker_names():
        assert load_ranker(name).name == name


def test_adding_a_file_adds_a_ranker(rankers: Path) -> None:
    (rankers / "ads.yaml").write_text(MINIMAL.replace("name: shelf", "name: ads"))
    assert ranker_names(rankers) == ["ads", "shelf"]
    assert load_ranker("ads", directory=rankers).data.source == "retail"


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        pytest.param(("  source: retail", "  sauce: retail"), 5, ["data.sauce", "Extra inputs", "expected one of: catalogue_days, events,"], id="unknown-key"),
        pytest.param(("kind: next_item", "kind: nextitem"), 3, ["kind", "'pair' or 'next_item'", "nextitem"], id="enum"),
        pytest.param(("recall@20", "recall"), 7, ["gates.metric", "pattern"], id="pattern"),
        pytest.param(("  source: retail", "  source: retail\n  window_days: lots"), 6, ["data.window_days", "integer", "lots"], id="type"),
        pytest.param(("  source: retail", "  source: retail\n  source: shop"), 6, ["written twice"], id="duplicate-key"),
        pytest.param(("data:", "data: ["), 6, ["expected valid YAML"], id="no-yaml"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(rankers: Path, change: tuple[str, str], line: int, words: list[str]) -> None:
    (rankers / "shelf.yaml").write_text(MINIMAL.replace(*change))
    with pytest.raises(ConfigurationError) as error:
        load_ranker("shelf", directory=rankers)
    message = str(error.value)
    assert f"shelf.yaml:{line}" in message, message
    for word in words:
        assert word in message


def test_an_unknown_ranker_names_the_known_ones(rankers: Path) -> None:
    with pytest.raises(ConfigurationError, match="known: shelf"):
        load_ranker("shelves", directory=rankers)


def test_a_file_whose_name_differs_is_refused(rankers: Path) -> None:
    (rankers / "other.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigurationError, match="expected 'other'"):
        load_ranker("other", directory=rankers)


def test_the_search_space_may_only_name_ranker_keys(rankers: Path) -> None:
    (rankers / "shelf.yaml").write_text(MINIMAL + "search:\n  space:\n    training.rate: {uniform: [0, 1]}\n")
    with pytest.raises(ConfigurationError, match=r"training\.rate"):
        load_ranker("shelf", directory=rankers)


def test_auc_is_a_metric_of_shortlists_alone(rankers: Path) -> None:
    (rankers / "shelf.yaml").write_text(MINIMAL.replace("recall@20", "auc"))
    with pytest.raises(ConfigurationError, match=r"gates\.metric: auc needs every candidate's place"):
        load_ranker("shelf", directory=rankers)
    (rankers / "shelf.yaml").write_text(MINIMAL.replace("recall@20", "auc").replace("next_item", "pair"))
    assert load_ranker("shelf", directory=rankers).gates.metric == "auc"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("training: {loss: listwise}\n", r"listwise is for pair"),
        (
            "search: {space: {training.loss: {choice: [pointwise, pairwise]}}}\n",
            r"training\.loss cannot be searched",
        ),
        ("training: {adapter: {kind: prefix}}\n", r"training\.adapter\.kind"),
    ],
    ids=["loss of another kind", "searched loss", "unknown adapter"],
)
def test_training_options_that_do_not_fit_are_refused(rankers: Path, more: str, words: str) -> None:
    (rankers / "shelf.yaml").write_text(MINIMAL + more)
    with pytest.raises(ConfigurationError, match=words):
        load_ranker("shelf", directory=rankers)


def test_the_digest_follows_the_meaning_not_the_layout(rankers: Path) -> None:
    plain = load_ranker("shelf", directory=rankers)
    (rankers / "shelf.yaml").write_text(
        "# a comment\n" + MINIMAL.replace("source: retail", "{source: retail}").replace("data:\n  ", "data: ")
    )
    assert load_ranker("shelf", directory=rankers).digest() == plain.digest()
    changed = load_ranker("shelf", {"training.epochs": 3}, directory=rankers)
    assert changed.training.epochs == 3
    assert changed.digest() != plain.digest()


def test_an_override_that_does_not_fit_is_refused(rankers: Path) -> None:
    ranker: Ranker = load_ranker("shelf", directory=rankers)
    with pytest.raises(ConfigurationError, match=r"training\.epochs"):
        ranker.with_values({"training.epochs": -1})
    with pytest.raises(ConfigurationError, match=r"training\.epoch"):
        ranker.with_values({"training.epoch": 1})
