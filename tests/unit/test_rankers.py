"""A ranker file is a typed form: what is wrong is named with file, line, path and expectation."""

from __future__ import annotations

from pathlib import Path

import pytest

from reshelve.config.ranker import Ranker, ranker_names
from reshelve.errors import ConfigurationError
from reshelve.pipeline.references import load_ranker

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
        pytest.param(("kind: next_item", "kind: nextitem"), 3, ["kind", "kind: expected a kind of ranker: next_item, pair, search", "nextitem"], id="enum"),
        pytest.param(("recall@20", "recall"), 7, ["gates.metric", "pattern"], id="pattern"),
        pytest.param(("recall@20", "map@0"), 7, ["gates.metric", "pattern", "map@0"], id="no depth"),
        pytest.param(("recall@20", "auc"), 7, ["gates.metric: auc needs the rank of every candidate"], id="no shortlist"),
        pytest.param(("recall@20", "recall@500"), 7, ["gates.metric: recall@500 is deeper", "at least 500, got 100"], id="too deep"),
        pytest.param(("  source: retail", "  source: retial"), 5, ["data.source: 'retial' is not a clickstream source", "known in"], id="no source"),
        pytest.param(("  source: retail", "  source: retail\n  window_days: lots"), 6, ["data.window_days", "integer", "lots"], id="type"),
        pytest.param(("  source: retail", "  source: retail\n  source: shop"), 6, ["written twice"], id="duplicate-key"),
        pytest.param(("kind: next_item", "kind: search\nexamples: {repeat: false}"), 4, ["examples.repeat: only next_item has a history"], id="no history"),
        pytest.param(("  source: retail", "  source: retail\n  exclude: {titles: ['*']}"), 6, ["data.exclude.titles.0", "pattern"], id="everything"),
        pytest.param(("  source: retail", "  source: retail\n  exclude: {title: [POSTAGE]}"), 6, ["data.exclude.title", "expected one of: categories, items, titles"], id="unknown part"),
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
    (rankers / "shelf.yaml").write_text(MINIMAL + "tuning:\n  space:\n    training.rate: {uniform: [0, 1]}\n")
    with pytest.raises(ConfigurationError, match=r"training\.rate"):
        load_ranker("shelf", directory=rankers)


def test_auc_is_a_metric_of_shortlists(rankers: Path) -> None:
    (rankers / "shelf.yaml").write_text(MINIMAL.replace("recall@20", "auc").replace("next_item", "pair"))
    assert load_ranker("shelf", directory=rankers).gates.metric == "auc"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("training: {loss: listwise}\n", r"listwise is for pair"),
        (
            "tuning: {space: {training.loss: {choice: [pointwise, pairwise]}}}\n",
            r"training\.loss: it cannot be tuned",
        ),
        (
            "tuning: {space: {examples.history_items: {choice: [4, 8]}}}\n",
            r"examples\.history_items: it cannot be tuned",
        ),
        ("training: {adapter: {kind: prefix}}\n", r"training\.adapter\.kind"),
    ],
    ids=["loss of another kind", "tuned loss", "tuned examples", "unknown adapter"],
)
def test_training_options_that_do_not_fit_are_refused(rankers: Path, more: str, words: str) -> None:
    (rankers / "shelf.yaml").write_text(MINIMAL + more)
    with pytest.raises(ConfigurationError, match=words):
        load_ranker("shelf", directory=rankers)


CONTRADICTIONS = {
    "whole number": ("tuning:\n  space:\n    training.batch_size: {uniform: [8, 64]}", "training.batch_size", "an integer"),
    "half a batch": ("tuning:\n  space:\n    training.batch_size: {choice: [8, 16.5]}", "training.batch_size", "16.5: .*integer"),
    "end out of range": ("tuning:\n  space:\n    training.warmup_share: {uniform: [0, 1.5]}", "warmup_share", "1.5: .*less than"),
    "upside down": ("tuning:\n  space:\n    training.warmup_share: {uniform: [0.3, 0.1]}", "warmup_share", "low < high"),
    "log of nothing": ("tuning:\n  space:\n    training.epochs: {loguniform: [0, 2]}", "training.epochs", "0 < low < high"),
    "one value twice": ("tuning:\n  space:\n    training.accumulate: {choice: [2, 2]}", "accumulate", "each value once"),
    "no range": ("tuning:\n  space:\n    training.epochs: {normal: [0, 2]}", "training.epochs", "expected one of {loguniform"),
    "examples read it": ("tuning:\n  space:\n    training.seed: {choice: [1, 2]}", "training.seed", "cannot be tuned"),
    "no trial reads it": ("tuning:\n  space:\n    training.patience: {choice: [1, 2]}", "training.patience", "cannot be tuned"),
    "made before": ("tuning:\n  space:\n    model.max_length: {choice: [16, 32]}", "model.max_length", "cannot be tuned"),
    "all trials would be equally fast": ("tuning:\n  latency_weight: 1", "latency_weight", "all trials would be equally fast"),
    "halves nothing": ("tuning:\n  halving:\n    min_share: 0.5", "min_share", "more than budget_share"),
    "negative seed": ("tuning:\n  seed: -1", "seed: -1", "greater than or equal"),
    "never early": ("training:\n  validations: 2\n  patience: 3", "patience", "never stops early"),
    "deeper than the model": ("model:\n  layers: 2\ncompression:\n  steps:\n  - step: distil\n    layers: 2", "    layers: 2", "fewer than the model"),
    "prunes nothing": ("compression:\n  steps:\n  - step: prune\n    feed_forward: 0", "feed_forward", "above 0"),
    "approved by nobody known": ("release:\n  approval: anybody", "approval", "expected true, false or another_person"),
    "shares fall": ("release:\n  canary:\n    shares: [0.3, 0.1]", "shares", "rising"),
    "nothing replayed": ("release:\n  shadow:\n    min_agreement: 0.5", "min_agreement", "nothing is replayed"),
    "no vectors to index": ("release:\n  index:\n    url: https://search.shop.example/version", "url:", "model.head: titles alone"),
    "no address": ("release:\n  index:\n    url: file:///etc/passwd", "url:", "an http or https address"),
    "an address with a secret": ("release:\n  index:\n    url: https://me:secret@shop.example/", "url:", "without a name"),
    "longer than it is": ("model:\n  head: titles\n  vector_size: 64\n  index_size: 128", "index_size", "at most model.vector_size"),
    "nothing to cut": ("model:\n  index_size: 64", "index_size", "expected null, or model.head: titles"),
    "clicks of nobody": ("release:\n  canary:\n    clicks:\n      max_drop: 0.1", "max_drop", "canary.shares"),
    "too few weeks": ("watch:\n  season:\n    days: 22\n    least: 4", "least", "3 earlier weeks"),
    "a step beyond the hour": ("schedule: '*/90 * * * *'", "schedule", "step of at most 60"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "at", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_contradicts_itself_is_refused_with_its_line(
    rankers: Path, more: str, at: str, words: str
) -> None:
    text = f"{MINIMAL}{more}\n"
    (rankers / "shelf.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=words) as refused:
        load_ranker("shelf", directory=rankers)
    line = max(number for number, said in enumerate(text.splitlines(), 1) if at in said)
    assert refused.value.headline.startswith(f"{rankers / 'shelf.yaml'}:{line}: "), refused.value.headline


@pytest.mark.parametrize(
    ("data", "at", "words"),
    [
        ("  window_days: 2", "window_days", "none to train on: expected at least 3"),
        ("  fold: 2", "fold", "folds need data.split: query"),
        ("  events: {click: -1.0}", "events", "greater than 0"),
        ("  events: {judgement: 1.0}", "source", "judgements go with data.events"),
    ],
    ids=["no training day", "a fold of no split", "a negative weight", "judgements by choice"],
)
def test_data_that_cannot_be_split_is_refused_with_its_line(
    rankers: Path, data: str, at: str, words: str
) -> None:
    text = MINIMAL.replace("  source: retail", f"  source: retail\n{data}")
    (rankers / "shelf.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=words) as refused:
        load_ranker("shelf", directory=rankers)
    if at != "source":
        line = next(number for number, said in enumerate(text.splitlines(), 1) if at in said)
        assert f"shelf.yaml:{line}: " in refused.value.headline


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("package:no_such_package_here", "is not installed"),
        ("package:typer", "has no model"),
        ("/no/such/directory", "is not a directory"),
        ("~nobody/here", "is not a directory"),
        ("http://example.com/model", "does not name a model"),
    ],
)
def test_a_base_that_is_not_there_is_refused_with_its_line(rankers: Path, base: str, words: str) -> None:
    (rankers / "shelf.yaml").write_text(f"{MINIMAL}model:\n  base: {base}\n")
    with pytest.raises(ConfigurationError, match=rf"shelf\.yaml:9: model\.base: .*{words}"):
        load_ranker("shelf", directory=rankers)
    with pytest.raises(ConfigurationError, match=rf"ranker shelf: model\.base: .*{words}"):
        (rankers / "shelf.yaml").write_text(MINIMAL)
        load_ranker("shelf", {"model.base": base}, rankers)


def test_a_base_that_has_to_be_fetched_is_looked_at_when_it_is(rankers: Path) -> None:
    for base in ("someone/a-model@main", "s3://bucket/a-model"):
        assert load_ranker("shelf", {"model.base": base}, rankers).model.base == base


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
