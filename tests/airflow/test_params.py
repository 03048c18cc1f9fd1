"""Params are checked without Airflow, and shown by it with their ranges."""

from __future__ import annotations

import pytest

from reshelve.rankers import load_ranker, ranker_names
from reshelve.tuning.plan import wave_count
from reshelve.verbs.options import overrides
from reshelve_airflow.nights import publication_refusal, release_refusal
from reshelve_airflow.params import (
    ParamsError,
    ReleaseParams,
    RetrainParams,
    airflow_params,
    retrain_params,
    rollback_params,
)


def test_empty_params_change_nothing() -> None:
    assert RetrainParams.read({}).values(rounds=2, search=load_ranker("search").search) == []


def test_params_become_ranker_keys_that_exist() -> None:
    given = {"epochs": 2, "max_minutes": 5, "trials": 3, "search_minutes": 1.5, "base": "package:x"}
    values = RetrainParams.read(given).values(rounds=2, search=load_ranker("search").search)
    assert "training.epochs=2.0" in values
    ranker = load_ranker("search").with_values(dict(value.split("=", 1) for value in values))
    assert (ranker.training.epochs, ranker.search.trials, ranker.model.base) == (2, 3, "package:x")


@pytest.mark.parametrize(("trials", "parallel"), [(4, None), (5, 3), (9, 5), (0, None)])
def test_more_trials_than_the_rounds_hold_make_the_rounds_wider(trials: int, parallel: int | None) -> None:
    values = RetrainParams.read({"trials": trials}).values(rounds=2, search=load_ranker("search").search)
    assert [value for value in values if "parallel" in value] == (
        [f"search.parallel={parallel}"] if parallel else []
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"epoch": 1}, "param epoch: Extra inputs", id="misspelt"),
        pytest.param({"epochs": 0}, "greater than 0", id="below"),
        pytest.param({"epochs": 101}, "less than or equal to 100", id="above"),
        pytest.param({"epochs": float("nan")}, "param epochs", id="no number"),
        pytest.param({"trials": 1.5}, "param trials", id="half a trial"),
        pytest.param({"partition": "yesterday"}, "param partition", id="no day"),
    ],
)
def test_a_wrong_param_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        RetrainParams.read(given)


def test_the_form_shows_ranges_types_and_texts() -> None:
    params = airflow_params(RetrainParams)
    epochs = params["epochs"].schema
    assert epochs["type"] == ["number", "null"]
    assert (epochs["exclusiveMinimum"], epochs["maximum"]) == (0, 100)
    assert "More than 0 to 100." in epochs["description_md"]
    assert params["partition"].schema["format"] == "date"
    assert params["release"].value is True


def test_a_ranker_s_own_form_says_what_its_file_says_and_refuses_what_it_cannot_do() -> None:
    recommend, ads = (load_ranker(name) for name in ("recommend", "ads"))
    form = airflow_params(retrain_params(recommend))
    assert set(form) == set(RetrainParams.model_fields)
    for name in form:
        said = form[name].schema["description_md"]
        assert (
            name in ("partition", "plan", "release", "note", "search_cost") or "the ranker file's" in said
        ), name
    assert "the ranker file's 56. **3 to 1,000.**" in form["window_days"].schema["description_md"]
    assert "no search.space" in airflow_params(retrain_params(ads))["trials"].schema["description_md"]
    with pytest.raises(ParamsError, match="param trials: Input should be less than or equal to 0"):
        retrain_params(ads).read({"trials": 1})
    with pytest.raises(ParamsError, match=r"no search\.price_per_hour"):
        retrain_params(recommend).read({"search_cost": 1})
    priced = retrain_params(recommend.with_values({"search.price_per_hour": 0.5}))
    assert priced.read({"search_cost": 1}).changes(rounds=2, search=recommend.search) == {
        "search.max_cost": 1
    }
    with pytest.raises(ParamsError, match="param base: String should have at most 500"):
        retrain_params(recommend).read({"base": "x" * 501})


@pytest.mark.parametrize("name", ranker_names())
def test_every_param_of_every_ranker_changes_the_key_it_names(name: str) -> None:
    """As the verbs get them: through the command line's own reading."""
    ranker = load_ranker(name)
    given = {"window_days": 40, "epochs": 0.5, "max_minutes": 3, "search_minutes": 2, "compression": "none"}
    given |= {"base": "package:x"} | ({"trials": 2} if ranker.search.space else {})
    params = retrain_params(ranker).read(given)
    values = params.values(rounds=max(1, wave_count(ranker.search)), search=ranker.search)
    changed = ranker.with_values(overrides(values))
    assert (changed.data.window_days, changed.training.epochs, changed.training.max_minutes) == (40, 0.5, 3)
    assert (changed.search.max_minutes, changed.model.base, changed.compression.steps) == (2, "package:x", ())
    assert (
        ranker.with_values(
            overrides(
                retrain_params(ranker).read({"compression": "int8"}).values(rounds=1, search=ranker.search)
            )
        ).compression.said
        == "int8"
    )


def test_a_version_must_be_given_and_a_rollback_is_a_dry_run() -> None:
    assert not airflow_params(ReleaseParams)["version"].has_value
    params = airflow_params(rollback_params(["recommend", "search"]))
    assert params["ranker"].schema["enum"] == ["recommend", "search"]
    assert params["dry_run"].value is True


def test_a_backfill_never_releases() -> None:
    assert "backfill" in release_refusal("backfill", automatic=True, asked=True)
    assert release_refusal("scheduled", automatic=True, asked=True) == ""
    assert "switched off" in release_refusal("manual", automatic=True, asked=False)
    assert "release.automatic" in release_refusal("manual", automatic=False, asked=True)


@pytest.mark.parametrize(
    ("published", "refused"),
    [
        pytest.param({"published": True, "verdict": "promote", "version": 1}, False, id="promote"),
        pytest.param({"published": True, "verdict": "hold", "version": 1}, True, id="hold"),
        pytest.param(
            {"published": False, "verdict": "reject", "reason": "below popularity"}, True, id="reject"
        ),
    ],
)
def test_only_a_published_promotion_is_released(published: dict[str, object], refused: bool) -> None:
    assert bool(publication_refusal(published)) == refused
