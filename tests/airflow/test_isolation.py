"""Whatever one file holds, the others have their DAGs: real files, Airflow's own DagBag, serialiser and timetable."""

from __future__ import annotations

import ast
import json
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction

from reshelve.config.ranker import Ranker
from reshelve.config.yaml_models import Form
from reshelve.names import is_ranker
from reshelve.pipeline.references import load_ranker
from reshelve.settings import settings
from reshelve_airflow.isolation import add_tasks, dags_of
from reshelve_airflow.policies import rankers

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = {
    "name": "good", "title": "A shelf", "kind": "next_item", "data": {"source": "retail"},
    "gates": {"metric": "recall@20"},
}  # fmt: skip


def text(name: str, more: str = "", **values: Any) -> str:
    return yaml.safe_dump({**GOOD, "name": name, **values}) + more


def written(value: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(value)

    return write


def bomb(name: str) -> str:
    """Aliases that stand for a billion values."""
    levels = ["b0: &b0 [x, x, x, x, x, x, x, x]"]
    levels += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 8)}]" for n in range(1, 10)]
    return text(name, "\n".join(levels))


# The stem of a file → how it is written. Wrong ones have an error that names the file, a line and one of these words.
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    **{
        f"cron_{number}": (written(text(f"cron_{number}", schedule=cron)), "expected")
        for number, cron in enumerate(
            (
                "0 25 * * *", "0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "R 3 * * *", "H 3 * * *", "0 3 * * * *", "@once",
                "@reboot", "", "0 3 * *", "never", "*/0 * * * *", "0 3 * * \u0661", "0 3 * * 1#9", "60 3 * * *", "5-1/x 3 * * *",
                "0 3 1-99999999999 * *", "0 3 L-3 * *", ",,, 3 * * *", "- - - - -", "# # # # #", "@daily ", "TZ=UTC 0 3 * * *",
            )
        )
    },
    "cron_number": (written(text("cron_number", schedule=5)), "schedule"),
    "owner_empty": (written(text("owner_empty", owner="")), "owner"),
    "owner_comma": (written(text("owner_comma", owner="a, b")), "owner"),
    "owner_long": (written(text("owner_long", owner="x" * 101)), "owner"),
    "owner_nul": (written(text("owner_nul", 'watch: {}\n').replace("name:", 'owner: "a\\0b"\nname:')), "character"),
    "title_surrogate": (written(text("title_surrogate").replace("A shelf", '"a \\ud800 shelf"')), "character"),
    "title_bytes": (written(text("title_bytes").replace("A shelf", "!!binary AAAAAA==")), "binary"),
    "other_name": (written(text("good")), "other_name"),
    "long_wait": (written(text("long_wait", release={"approval": True, "approval_hours": 1e308})), "approval_hours"),
    "nan_wait": (written(text("nan_wait", release={"approval": True, "approval_hours": float("nan")})), "approval_hours"),
    "inf_cost": (written(text("inf_cost", tuning={"price_per_hour": 1, "max_cost": float("inf")})), "max_cost"),
    "nan_weight": (written(text("nan_weight", data={"source": "retail", "events": {"click": float("nan")}})), "events"),
    "million_rounds": (
        written(
            text(
                "million_rounds",
                tuning={
                    "trials": 500,
                    "halving": {"bracket": 1, "min_share": 1e-300},
                    "space": {"training.learning_rate": {"uniform": [0.1, 0.2]}},
                },
            )
        ),
        "rounds",
    ),
    "no_source": (written(text("no_source", data={"source": "retial"})), "not a clickstream source"),
    "no_base": (written(text("no_base", model={"base": "package:no_such_base"})), "not installed"),
    "unknown_key": (written(text("unknown_key", "trainin: {}\n")), "expected one of"),
    "no_yaml": (written("name: [\n"), "YAML"),
    "a_tab": (written("name: x\n\ttitle: y\n"), "YAML"),
    "raw_nul": (written(text("raw_nul") + "x: \x00\n"), "character"),
    "deep": (written("[" * 20_000), "YAML"),
    "deep_keys": (written("{a: " * 5_000), "YAML"),
    "aliases": (lambda path: path.write_text(bomb("aliases")) and None, "values"),
    "itself": (written(text("itself", "watch: &w {guard: *w}\n")), "itself"),
    "a_list_as_key": (written(text("a_list_as_key", "? [a, b]\n: c\n")), "key"),
    "no_such_day": (written(text("no_such_day").replace("A shelf", "2024-13-45")), "month"),
    "many_digits": (written(text("many_digits", f"training: {{seed: {'9' * 5_000}}}\n")), "digits"),
    "python": (written(text("python", "x: !!python/object/apply:os.getcwd []\n")), "python"),
    "twice": (written(text("twice", "name: twice\n")), "twice"),
    "merged": (written(text("merged", "training: {<<: {epochs: 1}}\n")), "merge"),
    "empty": (written(""), "mapping"),
    "a_list": (written("- a\n"), "mapping"),
    "two": (written(text("two") + "---\n" + text("two")), "YAML"),
    "latin": (lambda path: path.write_bytes(b"title: caf\xe9\n") and None, "read"),
    "large": (written(text("large") + "# " + "x" * 1_000_000), "bytes"),
    "a_folder": (lambda path: path.mkdir(), "a file"),
    "a_pipe": (os.mkfifo, "a file"),
    "dangling": (lambda path: path.symlink_to("/nowhere"), "a file"),
    "Upper": (written(text("upper")), "letters"),
    "with space": (written(text("space")), "letters"),
    "ünicode": (written(text("unicode")), "letters"),
    "a" * 42: (written(text("a" * 42)), "letters"),
    os.fsdecode(b"bytes\xff"): (written(text("bytes")), "letters"),
}  # fmt: skip
NO_FILES = ("a_folder", "a_pipe", "dangling")
# Of these a night cannot be run; what they released is watched and taken back all the same.
WITHOUT_THEIR_SOURCE_OR_BASE = ("no_source", "no_base")
# Their names are those of things in the DAG files, or of others' ids.
RIGHT = ("params", "night", "dag", "rankers", "ranker", "release", "retrain_good", "zz")


def everything(directory: Path) -> dict[str, Any]:
    """What Airflow finds with these ranker files, in a process of its own."""
    code = (
        "from airflow.dag_processing.dagbag import DagBag; import json\n"
        "b = DagBag()\n"
        "print('FOUND', ascii([sorted(b.dags), {k: v for k, v in b.import_errors.items()},"
        " sorted(t.task_id for d in ('monitor', 'housekeeping', 'clickstream') for t in b.dags[d].tasks)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=500,
        env={
            **os.environ, "PYTHONPATH": f"{HERE}/include:{HERE}/plugins", "RESHELVE_RANKERS_DIR": str(directory),
            "RESHELVE_CLICKSTREAMS_DIR": str(directory.parent / "clickstreams"), "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "200",
            "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACKS": "False",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    dags, errors, tasks = ast.literal_eval(line.removeprefix("FOUND "))
    return {"dags": set(dags), "errors": errors, "tasks": set(tasks)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("files") / "rankers"
    directory.mkdir()
    for name in ("good", *RIGHT):
        (directory / f"{name}.yaml").write_text(text(name))
    for name, (write, _) in WRONG.items():
        write(directory / f"{name}.yaml")
    (directory / ".#good.yaml").symlink_to("anna@laptop.1234")  # an editor's lock
    sources = directory.parent / "clickstreams"
    sources.mkdir()
    retail = (HERE / "include/clickstreams/retail.yaml").read_text()
    (sources / "retail.yaml").write_text(retail)
    (sources / "no source.yaml").write_text(retail)
    (sources / "broken.yaml").write_text("name: [")
    (sources / "no_rules.yaml").write_text(
        retail.replace("name: retail", "name: no_rules\nrules: clickstrem")
    )
    return everything(directory)


def test_every_right_file_has_its_dags_beside_every_wrong_one(found: dict[str, Any]) -> None:
    for name in ("good", *RIGHT):
        assert {f"retrain_{name}", f"release_{name}"} <= found["dags"], name
        assert {f"watch_{name}", f"alert_{name}", f"release_{name}", f"clean_{name}"} <= found["tasks"], name
    assert {"clickstream", "housekeeping", "monitor"} <= found["dags"]
    for name in WITHOUT_THEIR_SOURCE_OR_BASE:
        assert f"release_{name}" in found["dags"] and {f"watch_{name}", f"clean_{name}"} <= found["tasks"]
    decisions = {name for name in found["dags"] if name.startswith(("approve_", "withdraw_", "rollback_"))}
    files = [name for name in ("good", *RIGHT, *WRONG) if is_ranker(name) and name not in NO_FILES]
    assert decisions == {
        f"{verb}_{name}" for verb in ("approve", "withdraw", "rollback") for name in files
    }, "a wrong file takes away no way back"
    assert len(found["dags"]) - len(decisions) == 3 + 2 * (1 + len(RIGHT)) + len(WITHOUT_THEIR_SOURCE_OR_BASE)


def test_the_only_import_error_is_that_of_the_wrong_files(found: dict[str, Any]) -> None:
    assert [Path(file).name for file in found["errors"]] == ["ranker_files.py"]


@pytest.mark.parametrize(("name", "words"), [(n, w) for n, (_, w) in WRONG.items()], ids=map(ascii, WRONG))
def test_a_wrong_file_is_named_with_its_line_and_what_was_expected(
    found: dict[str, Any], name: str, words: str
) -> None:
    (said,) = found["errors"].values()
    at = f"/{ascii(name)[1:-1]}.yaml"
    about = [part for part in said.split("; ") if f"{at}:" in part]
    assert about, said
    place = about[0].partition(f"{at}:")[2]
    assert place[0].isdigit() and words in said.partition(f"{at}:")[2], about


def test_a_wrong_mapping_file_costs_no_other_source_its_tasks(found: dict[str, Any]) -> None:
    (said,) = found["errors"].values()
    assert "no source.yaml:1" in said and "broken.yaml:" in said
    assert "no_rules.yaml:3: rules: no rule file 'clickstrem'" in said
    assert {"validate_retail", "expire_retail", "validate_broken"} <= found["tasks"]


@pytest.fixture(scope="module")
def builders() -> dict[str, Callable[[Ranker], DAG]]:
    """What the DAG files make a ranker's DAGs with."""
    night = runpy.run_path(str(HERE / "dags/retrain.py"))["night_dag"]
    return {"retrain": night, "release": runpy.run_path(str(HERE / "dags/release.py"))["release_dag"]}


def test_what_the_form_does_not_refuse_costs_that_ranker_alone(
    builders: dict[str, Callable[[Ranker], DAG]],
) -> None:
    good = load_ranker("recommend")
    bad = good.model_copy(update={"name": "bad", "schedule": "0 25 * * *"})
    worse = good.model_copy(update={"name": "no/id"})
    made, problems = dags_of([bad, good, worse], builders["retrain"])
    assert [dag.dag_id for dag in made.values()] == ["retrain_recommend"]
    assert "bad.yaml:1: " in problems[0].headline and "25" in problems[0].detail
    assert len(problems) == 2
    watch = runpy.run_path(str(HERE / "dags/monitor.py"))["watch"]
    dag = DAG("monitor_here", auto_register=False)
    (problem,) = add_tasks(dag, [good.model_copy(update={"name": "no name"}), good], watch)
    assert "no name.yaml:1: " in problem.headline
    assert {task.task_id.rpartition("_")[2] for task in dag.tasks} == {"recommend"}


def leaves(form: type[Form], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a ranker file, as a path."""
    for key, field in form.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Form):
            yield from leaves(field.annotation, (*above, key))
        else:
            yield (*above, key)


HOSTILE = [
    None, True, 0, 1, -1, 3, 500, 10**400, -(10**400), 0.0, -0.5, 1e-300, 1e308, float("nan"), float("inf"), "", " ", "a", "x" * 100_000,
    "\x00", "\x1b[2J", "\u202e", "{{ 1 / 0 }}", "${HOME}", "%s%n", "'; DROP TABLE dag; --", "../../etc", "<script>", "\n\n", "é" * 50,
    "0 3 29 2 *", "*/1 * * * *", "@weekly", [], [[]], ["a"] * 3, [0.1, 0.5], {}, {"a": {"b": 1}}, {"loguniform": [0, 0]},
]  # fmt: skip
A_KEY = 8
PATHS = sorted(leaves(Ranker))


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_each_key_at_each_hostile_value_has_a_dag_or_an_error(
    path: tuple[str, ...],
    builders: dict[str, Callable[[Ranker], DAG]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is taken can be kept by the database and followed by the scheduler, too."""
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(tmp_path))
    settings.cache_clear()
    drawn = random.Random(".".join(path)).sample(HOSTILE, A_KEY)  # all of them for every key take minutes
    for number, value in enumerate(drawn):
        document = json.loads(json.dumps({**GOOD, "name": f"h{number}", "release": {"approval": True}}))
        section = document
        for key in path[:-1]:
            section = section.setdefault(key, {})
        section[path[-1]] = value
        (tmp_path / f"h{number}.yaml").write_text(yaml.safe_dump(document))
    taken, refused = rankers()
    settings.cache_clear()
    assert len(taken) + len(refused) == A_KEY
    for error in refused:
        place = str(error).partition(str(tmp_path))[2]
        assert place.startswith("/h") and place.partition(".yaml:")[2][:1].isdigit(), error
    for build in builders.values():
        made, problems = dags_of(taken, build)
        assert not problems and len(made) == len(taken), problems
        for dag in made.values():
            document = json.dumps(DagSerialization.to_dict(dag), allow_nan=False)
            assert "\\u0000" not in document and "\\ud8" not in document
            if dag.schedule is not None:
                assert dag.timetable.next_dagrun_info_v2(
                    last_dagrun_info=None, restriction=TimeRestriction(None, None, True)
                )
