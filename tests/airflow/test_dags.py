"""House policy for every DAG, and what they are wired to do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.types import DagRunType

from reshelve.config.yaml_models import load_form
from reshelve.platform.configuration import Machine
from reshelve_airflow.policies import Pool, Tag
from reshelve_airflow.settings_file import SettingsFile
from reshelve_airflow.timetable import NightTimetable

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parents[2]
DAG_FILES = sorted((HERE / "dags").glob("*.py"))
HEAVY = {"torch", "tensorflow", "great_expectations", "boto3"}
SLOW = {"transformers", "duckdb", "pyarrow", "pandas", "scipy", "hyperopt", "sklearn"}


@pytest.fixture(scope="module")
def bag() -> DagBag:
    found = DagBag()
    assert found.import_errors == {}
    return found


def dag(bag: DagBag, name: str) -> DAG:
    return bag.dags[name]  # type: ignore[return-value]


def test_every_ranker_has_its_dags(bag: DagBag) -> None:
    common = {"clickstream", "housekeeping", "monitor", "refresh_search"}
    assert set(bag.dags) == common | {
        f"{kind}_{name}"
        for kind in ("retrain", "release", "approve", "withdraw", "rollback")
        for name in ("ads", "recommend", "relevance", "search")
    }


def test_every_dag_follows_the_policy(bag: DagBag) -> None:
    for one in bag.dags.values():
        assert one.doc_md and len(one.doc_md) > 100, one.dag_id
        assert one.description and Tag.RESHELVE in one.tags and set(one.tags) <= set(Tag), one.dag_id
        assert one.catchup is False and one.dagrun_timeout, one.dag_id
        # The decision of one person must not wait for another's.
        decides = one.dag_id.startswith(("approve_", "withdraw_", "rollback_"))
        assert (one.max_active_runs == 1) is not decides, one.dag_id
        assert one.start_date is None, f"{one.dag_id}: a start date makes earlier manual runs empty"
        for name in one.params:
            assert one.params.get_param(name).description, f"{one.dag_id}.{name}: no description"


def test_the_watch_needs_nobody_to_switch_it_on(bag: DagBag) -> None:
    watch = dag(bag, "monitor")
    assert watch.is_paused_upon_creation is False
    looks = [task for task in watch.tasks if task.task_id.startswith("watch_")]
    assert looks and all(task.skip_when == {"released": False} for task in looks)  # type: ignore[attr-defined]


def test_the_watch_leaves_a_night_its_slots(bag: DagBag, tmp_path: Path) -> None:
    slots = int(Machine(tmp_path).environment()["AIRFLOW__CORE__PARALLELISM"])
    watch = dag(bag, "monitor")
    assert watch.max_active_tasks <= slots // 2
    assert watch.max_active_tasks > 1, "a look that hangs would hold up all the others"


def test_a_rollback_has_a_slot_while_every_ranker_has_a_release_that_waits(
    bag: DagBag, tmp_path: Path
) -> None:
    pools = yaml.safe_load((HERE / "airflow_settings.yaml").read_text())["airflow"]["pools"]
    compose = yaml.safe_load((HERE / "docker-compose.yaml").read_text())["x-airflow-environment"]
    computes = sum(pool["pool_slot"] for pool in pools) + dag(bag, "monitor").max_active_tasks
    releases = [name for name in bag.dags if name.startswith("release_")]
    for environment in (Machine(tmp_path).environment(), compose):
        slots = int(re.findall(r"\d+", environment["AIRFLOW__CORE__PARALLELISM"])[-1])
        assert slots - computes > len(releases)


def test_every_task_follows_the_policy(bag: DagBag) -> None:
    pools = {"default_pool", *Pool}
    for one in bag.dags.values():
        for task in one.tasks:
            assert task.owner != "airflow", task
            assert task.retries >= 1 and task.execution_timeout and task.pool in pools, task


def test_every_dag_survives_its_way_through_the_database(bag: DagBag) -> None:
    for one in bag.dags.values():
        back = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(one))
        assert back.task_ids == one.task_ids
        if isinstance(one.timetable, NightTimetable):
            assert back.timetable.serialize() == one.timetable.serialize()


def test_the_pools_are_those_of_the_settings_file() -> None:
    pools = load_form(SettingsFile, HERE / "airflow_settings.yaml").imports()["pools"]
    assert set(pools) == set(Pool)
    assert pools[Pool.ACCELERATOR] == {**pools[Pool.ACCELERATOR], "slots": 1, "include_deferred": True}


def test_a_night_runs_its_stages_in_order_and_tunes_in_rounds(bag: DagBag) -> None:
    night = dag(bag, "retrain_search")
    order = [task.task_id for task in night.topological_sort()]
    stages = [
        "night",
        "await_verdict",
        "examples",
        "tune.ask_1",
        "tune.evaluate_1",
        "tune.ask_2",
        "tune.evaluate_2",
    ]
    stages += [
        "tune.tell",
        "train",
        "blend",
        "compress",
        "package",
        "gate",
        "publish",
        "report",
        "decide_release",
        "release",
    ]
    assert order == stages
    assert night.get_task("train").pool == Pool.ACCELERATOR
    for task in night.tasks:
        if task.task_id in ("examples", "tune.evaluate_1", "tune.tell", "train", "publish"):
            given = task.partial_kwargs if task.is_mapped else vars(task)
            assert given["options_from"] == "night", "the stages of a run must share one identity"


def test_the_report_waits_for_everything_and_nothing_waits_for_it(bag: DagBag) -> None:
    """A night that ended early has one too, a skipped night has none, and no release ever depends on it."""
    report = dag(bag, "retrain_recommend").get_task("report")
    assert report.upstream_task_ids == {"examples", "publish"} and not report.downstream_task_ids
    assert report.trigger_rule == "all_done_min_one_success"
    assert [link.name for link in report.operator_extra_links] == ["Report"]


def test_only_a_search_is_blended(bag: DagBag) -> None:
    assert dag(bag, "retrain_search").get_task("compress").upstream_task_ids == {"blend"}
    night = dag(bag, "retrain_recommend")
    assert "blend" not in night.task_ids
    assert night.get_task("compress").upstream_task_ids == {"train"}


def test_a_skipped_night_skips_its_tuning(bag: DagBag) -> None:
    """The rules ask for one success above: a task that succeeds on every night may not be among them."""
    night = dag(bag, "retrain_search")
    assert night.get_task("tune.ask_2").upstream_task_ids == {"tune.ask_1", "tune.evaluate_1"}
    assert night.get_task("tune.tell").upstream_task_ids == {"tune.ask_2", "tune.evaluate_2"}


def test_a_new_ranker_file_makes_its_dags_and_a_broken_one_takes_no_others_away(tmp_path: Path) -> None:
    search = (HERE / "include/rankers/search.yaml").read_text()
    (tmp_path / "search.yaml").write_text(search)
    (tmp_path / "ads.yaml").write_text(search.replace("name: search", "name: ads"))
    (tmp_path / "broken.yaml").write_text(search.replace("name: search", "name: broken") + "trainin: {}\n")
    code = "from airflow.dag_processing.dagbag import DagBag; b = DagBag(); print(sorted(b.dags)); print(b.import_errors)"
    done = python(code, RESHELVE_RANKERS_DIR=str(tmp_path))
    dags, errors = done.stdout.splitlines()[-2:]
    assert (
        "'retrain_ads'" in dags
        and "'release_ads'" in dags
        and "'retrain_search'" in dags
        and "'retrain_broken'" not in dags
        and "'release_broken'" not in dags
        and "'rollback_broken'" in dags
    )
    assert "ranker_files.py" in errors and "broken.yaml:" in errors and "trainin" in errors
    assert "retrain.py" not in errors


def imports(path: Path) -> set[str]:
    """The top names of every import in a file, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_no_dag_file_names_a_heavy_package(path: Path) -> None:
    assert not imports(path) & HEAVY


def test_nothing_under_include_names_airflow() -> None:
    guilty = [path.name for path in (HERE / "include/reshelve").rglob("*.py") if "airflow" in imports(path)]
    assert not guilty


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_importing_a_dag_file_loads_nothing_slow(path: Path) -> None:
    """Every task imports its DAG file again, and the processor every half minute: 0.4 s, as long as this holds."""
    # No task imports this one, which has no DAG; it reads the rule files, whose SQL DuckDB parses.
    reads_rules = {"duckdb", "pyarrow"} if path.name == "ranker_files.py" else set()
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("dag_file", {str(path)!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(sorted({(HEAVY | SLOW) - reads_rules!r} & set(sys.modules)))
"""
    assert python(code).stdout.splitlines()[-1] == "[]"


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": f"{HERE}/include:{HERE}/plugins"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **paths, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("run", "asked", "found"),
    [
        pytest.param(("manual", "anna"), None, "anna", id="by hand"),
        pytest.param(("manual", "anna"), "ben", "anna", id="by hand, in another's name"),
        pytest.param(("operator_triggered", "anna"), None, "anna", id="by a night that anna started"),
        pytest.param(("operator_triggered", None), None, "", id="by a scheduled night"),
        pytest.param(
            ("operator_triggered", None), "ben", "ben", id="by the watch, what ben's release waited for"
        ),
        pytest.param(("manual", None), "ben", "", id="by nobody that Airflow knows"),
    ],
)
def test_who_requests_a_release_is_who_airflow_says(
    bag: DagBag, run: tuple[str, str | None], asked: str | None, found: str
) -> None:
    task: Any = dag(bag, "release_recommend").get_task("release")
    assert "requested_by" not in task.option_params
    kind, person = run
    context = {
        "params": SimpleNamespace(requested_by=asked),
        "dag_run": SimpleNamespace(run_type=DagRunType(kind), triggering_user_name=person, run_id="r"),
    }
    said = task.render_template(task.options, context)
    assert (said["user"], said["by"]) == (found, person or "r")
    decides: Any = dag(bag, "approve_recommend").get_task("approve")
    said = decides.render_template(decides.options, context)
    assert said == {"ranker": "recommend", "by": person or "r", "user": person or ""}


def test_the_watch_hands_on_who_requested_what_waited(bag: DagBag) -> None:
    watch = dag(bag, "monitor")
    begins: Any = watch.get_task("release_recommend")
    asks: Any = watch.get_task("retrain_recommend")
    conf = begins.conf
    assert "watch_recommend" in conf["requested_by"]
    ti = SimpleNamespace(xcom_pull=lambda task_ids: {"watch_recommend": {"requested_by": "ben"}}[task_ids])
    said = begins.render_template(conf["requested_by"], {"ti": ti})
    assert said == "ben"
    assert "requested_by" not in asks.conf


def test_only_a_ranker_that_asks_for_it_waits_for_a_person(tmp_path: Path) -> None:
    search = (HERE / "include/rankers/search.yaml").read_text()
    careful = (
        search.replace("name: search", "name: careful") + "release: {approval: true, approval_hours: 5}\n"
    )
    (tmp_path / "search.yaml").write_text(search)
    (tmp_path / "careful.yaml").write_text(careful)
    code = (
        "from airflow.dag_processing.dagbag import DagBag; b = DagBag(); print(b.import_errors)\n"
        "for name in ('release_search', 'release_careful'):\n"
        "    d = b.dags[name]; print([t.task_id for t in d.topological_sort()], d.dagrun_timeout)\n"
        "t = d.get_task('approval'); print(t.response_timeout, t.defaults, t.options)"
    )
    done = python(code, RESHELVE_RANKERS_DIR=str(tmp_path))
    assert done.stdout.splitlines()[-4:] == [
        "{}",
        "['release'] 3:00:00",
        "['release', 'approval', 'conclude'] 8:00:00",
        "5:00:00 ['Reject'] ['Approve', 'Reject']",
    ], done.stderr[-2000:]


def test_a_new_product_list_is_released_as_a_night_is(bag: DagBag) -> None:
    refresh: Any = dag(bag, "refresh_search")
    assert refresh.dagrun_timeout == dag(bag, "retrain_search").dagrun_timeout, (
        "it may wait for a night in the pool"
    )
    assert refresh.params["allow_removed"] is False
    assert refresh.get_task("refresh").option_params == ("allow_removed",)
    assert refresh.get_task("decide_release").upstream_task_ids == {"refresh"}
    release = refresh.get_task("release")
    assert release.upstream_task_ids == {"decide_release"} and release.trigger_dag_id == "release_search"
