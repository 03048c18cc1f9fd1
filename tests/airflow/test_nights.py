"""The first task of `retrain_<ranker>` begins the night, and the others go on with it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from reshelve.config.ranker import Ranker
from reshelve.pipeline.pinned_night import LONGEST_NIGHT, begun
from reshelve.pipeline.references import load_ranker
from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore
from reshelve_airflow.child import Child, verb_command
from reshelve_airflow.forms import retrain_params
from reshelve_airflow.nights import NightOperator
from reshelve_airflow.policies import rankers
from reshelve_airflow.verb import pinned

pytestmark = pytest.mark.slow

DAY = "2011-08-30"


@pytest.fixture
def file(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "rankers"
    shutil.copytree(PROJECT / "include" / "rankers", folder)
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(folder))
    settings.cache_clear()
    return folder / "recommend.yaml"


def context(ranker: Ranker, **asked: Any) -> Any:
    """What Airflow tells the task of a run that a person filled in so."""
    params = {**retrain_params(ranker)().model_dump(), "partition": DAY, **asked}
    run = SimpleNamespace(
        conf=asked,
        partition_key=None,
        data_interval_start=None,
        data_interval_end=None,
        logical_date=None,
        run_type="manual",
        run_id="by hand",
    )
    pushed = SimpleNamespace(xcom_push=lambda key, value: None)
    return {"params": params, "dag_run": run, "dag": SimpleNamespace(params=params), "ti": pushed}


def night(**asked: Any) -> dict[str, Any]:
    """What the task hands on."""
    ranker = load_ranker("recommend")
    return NightOperator(task_id="night", ranker=ranker, rounds=1).execute(context(ranker, **asked))


def test_the_form_and_the_file_of_then_hold_for_every_stage(file: Path) -> None:
    said = night(epochs=3.5)
    assert said["options"].keys() == {"partition", "run"}, "values of the form are in the run"
    file.write_text(file.read_text().replace("window_days: ", "window_days: 1"))
    run = begun("recommend", DAY, said["options"]["run"])
    assert run.id == said["run"] and said["source"] == run.ranker.data.source
    assert run.ranker.training.epochs == 3.5 and run.ranker.data.window_days < 100
    started = pinned({"ranker": "recommend", **said["options"]})
    copy = Path(started["PYTHONPATH"].partition(":")[0])
    assert (copy / "reshelve" / "cli.py").is_file() and copy.is_relative_to(settings().work)
    assert pinned({"ranker": "recommend", "partition": DAY, "set": []}) == {}, (
        "a run of before there were pins"
    )


def test_a_night_keeps_its_dags_while_its_file_is_wrong(file: Path) -> None:
    made = night()
    before = load_ranker("recommend")
    file.write_text(file.read_text().replace("source: retail", "source: nothing"))
    good, wrong = rankers()
    assert before in good and [error for error in wrong if "nothing" in error.headline]
    with pytest.raises(AirflowFailException, match="not a clickstream source"):
        NightOperator(task_id="night", ranker=before, rounds=1).execute(context(before))
    pin = settings().work / made["run"] / ".pin.json"
    long_ago = time.time() - LONGEST_NIGHT.total_seconds() - 60
    os.utime(pin, (long_ago, long_ago))
    assert "recommend" not in [ranker.name for ranker in rankers()[0]]


def test_a_form_begins_no_night_from_a_base_that_is_not_listed(
    file: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Airflow let through: by the form again, by the verb again, and a listed one that is not there."""
    with pytest.raises(AirflowFailException, match="is not in the list of base models"):
        night(base="s3://somebody/bucket")
    bases = tmp_path / "bases.yaml"
    bases.write_text("bases: {gone: {source: 'package:no_such_package', why: a package that is away}}")
    monkeypatch.setenv("RESHELVE_BASES", str(bases))
    settings.cache_clear()
    with pytest.raises(AirflowFailException, match="no_such_package"):
        night(base="gone")
    assert not list(store.list("runs/"))
    command = verb_command("begin", {"ranker": "recommend", "partition": DAY, "base": "s3://somebody/bucket"})
    outcome = Child(command).run(lambda _: None)
    assert outcome.code == 78 and "is not in the list of base models" in outcome.headline
    assert not list(store.list("runs/"))


def test_a_listed_base_is_pinned_by_what_it_stands_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = tmp_path / "bases.yaml"
    bases.write_text("bases: {other: {source: 's3://models/other/', why: it is another one}}")
    monkeypatch.setenv("RESHELVE_BASES", str(bases))
    settings.cache_clear()
    said = night(base="other")
    bases.write_text("bases: {other: {source: 's3://models/newer/', why: it is a newer one}}")
    assert begun("recommend", DAY, said["run"]).ranker.model.base == "s3://models/other/"
