"""`make bench-scale` in small: its plan, its peers, its steps, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from reshelve.settings import PROJECT

Bench = Callable[[str], ModuleType]


@pytest.fixture
def given(bench: Bench, tmp_path: Path) -> Any:
    return bench("scale_given").Given(
        data=tmp_path / "none", work=tmp_path, peers=None, seed=1, threads=1, width=32, rounds=20, questions=20, vectors="auto",
        memory_gb=8,
    )  # fmt: skip


class TestPlan:
    def test_each_step_comes_after_what_it_needs(self, bench: Bench) -> None:
        tasks = bench("scale_plan").planned(
            [10_000, 1_000], [5], ["search", "next_item", "retrieval", "events"]
        )
        done: dict[tuple[str, int], set[str]] = {}
        for task in tasks:
            before = done.setdefault((task.kind, task.size), set())
            assert set(task.needs) <= before, task
            before.add(task.step)
        assert [size for kind, size in done if kind == "sizes"] == [1_000, 10_000]
        assert next(iter(done)) == ("blend", bench("scale_plan").BLEND_ITEMS)
        of_size = done["sizes", 1_000]
        assert {"ask", "recall", "next_item_ask", "retrieval"} <= of_size
        assert done["events", 5] == {"draw", "search_examples", "impression_examples", "rates", "searches"}

    @pytest.mark.parametrize(
        ("parts", "steps"),
        [
            (["next_item"], {"catalogue", "next_item_package", "next_item_ask"}),
            (["search"], {"catalogue", "tables", "package", "ask", "exhaustive", "recall"}),
            (["retrieval"], {"catalogue", "tables", "package", "ask", "exhaustive", "recall", "retrieval"}),
            (["events"], set()),
        ],
        ids=lambda given: given[0] if isinstance(given, list) else "",
    )
    def test_only_what_was_asked_is_measured(self, bench: Bench, parts: list[str], steps: set[str]) -> None:
        tasks = bench("scale_plan").planned([1_000], [], parts)
        assert {task.step for task in tasks if task.kind == "sizes"} == steps
        assert any(task.kind == "blend" for task in tasks) == ("search" in parts or "retrieval" in parts)

    def test_a_step_that_fails_is_named_and_the_rest_goes_on(
        self, bench: Bench, given: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plan = bench("scale_plan")
        script = (
            "import json, os, sys, time; task = json.loads(sys.argv[1])['step']\n"
            "if task == 'tables': sys.exit('not a table')\n"
            "if task == 'slow': time.sleep(60)\n"
            "if task == 'killed': os.kill(os.getpid(), 9)\n"
            "print('noise'); print(json.dumps({'cpu_s': 1.5, 'peak_mb': 20}))"
        )
        tasks = [
            plan.Task(kind="sizes", size=7, step=step, needs=needs)
            for step, needs in {
                "catalogue": (), "tables": ("catalogue",), "package": ("tables",), "ask": ("package",), "killed": (),
                "slow": (), "other": ("catalogue",),
            }.items()
        ]  # fmt: skip
        found = plan.begun(given)
        plan.run(tasks, given, [sys.executable, "-c", script], 10, found)
        steps = found["sizes"]["7"]
        assert steps["tables"] == {"failed": "status 1: not a table"}
        assert steps["package"] == {"skipped": "needs tables"} and steps["ask"] == {
            "skipped": "needs package"
        }
        assert steps["killed"]["failed"].startswith("signal 9")
        assert steps["slow"]["failed"].startswith("took longer than")
        assert steps["other"] == {"cpu_s": 1.5, "peak_mb": 20}
        assert "[7/7] 7 products: other: 1.5 CPU-s, 20 MB" in capsys.readouterr().err

    def test_every_step_of_the_plan_is_there(self, bench: Bench) -> None:
        plan, registry = bench("scale_plan"), bench("scale_registry")
        named = {*plan.NEEDS, *plan.EVENT_NEEDS, "blend"}
        assert named == {*registry.OF_CATALOGUE, *registry.OF_EVENTS, "catalogue", "draw", "retrieval"}


class TestTable:
    def test_a_line_for_each_figure_and_a_column_for_each_size(
        self, bench: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = {"one_p50_ms": 12.34, "one_cpu_ms": 20.0}
        retrieval = {"found": {"bm25s": {"cpu_ms": 0.5, "recall_10": 0.25}}, "vectors": "projections", "absent": {"FAISS": "no"}}  # fmt: skip
        bench("scale_table").show(
            {
                "sizes": {
                    "1000": {"ask": asked, "retrieval": retrieval},
                    "1000000": {
                        "tables": {"failed": "signal 9: no message"},
                        "ask": {"skipped": "needs tables"},
                    },
                },
                "events": {"5000000": {"rates": {"cpu_s": 3.21, "peak_mb": 400}}},
            }
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["products", "1,000", "1,000,000"]
        cells = {line[:44].strip(): line[44:].split() for line in lines}
        assert cells["search: one query, p50 ms"] == ["12.3", "skipped"]
        assert cells["search: tables, CPU-s"] == ["failed"]
        assert cells["bm25s: recall@10 of the exhaustive"] == ["0.250"]
        assert cells["rates of impressions, CPU-s"] == ["3.2"]
        assert "absent: FAISS (no)" in lines
        assert "1,000,000 products, tables: signal 9: no message" in lines


def test_retrievers_are_asked_in_turn(bench: Bench) -> None:
    order: list[tuple[str, int]] = []

    def engine(name: str, step: int) -> Callable[[int], list[int]]:
        def asked(question: int) -> list[int]:
            order.append((name, question))
            return [question * step]

        return asked

    found, used = bench("scale_retrieval").in_turn({"a": engine("a", 1), "b": engine("b", 2)}, 3)
    assert found == {"a": [[0], [1], [2]], "b": [[0], [2], [4]]} and used.keys() == {"a", "b"}
    assert order[2:] == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_projected_titles_are_near_those_that_share_words(bench: Bench) -> None:
    vectors = bench("scale_vectors")
    names = [*(f"blue mug no {number}" for number in range(60)), "red lantern of paper"]
    read = vectors.Projections(names, 1)
    titles, asked = read(names), read(["lantern paper", ""])
    assert titles.shape == (len(names), 128) and np.isfinite(asked).all()
    assert int((titles @ asked[0]).argmax()) == len(names) - 1
    assert vectors.chosen("auto", 1_000_000) == "projections" and vectors.chosen("encoder", 1_000_000) == "encoder"  # fmt: skip


@pytest.mark.slow
def test_the_examples_stage_reads_drawn_days(bench: Bench, given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    events = bench("scale_events")
    monkeypatch.setattr(bench("bench_events"), "DAYS", 24)
    monkeypatch.setattr(bench("bench_events"), "ITEMS", 300)
    monkeypatch.setattr(bench("bench_events"), "QUERIES", 200)
    assert events.draw(tmp_path, given, 3_000)()["disk_mb"] > 0
    for name in ("searched", "shown"):
        found = events.examples(tmp_path, given, name)()
        assert min(found["train"], found["validation"], found["holdout"]) > 0, found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "/nowhere"], "--peers /nowhere: expected a folder"),
        (["--sizes", "0"], "0: expected a number of at least 1"),
        (["--parts", "everything"], "invalid choice: 'everything'"),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_is_done(
    bench: Bench, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["bench_scale.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        bench("bench_scale").main()
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_stopped_prints_what_it_has(tmp_path: Path) -> None:
    script = [sys.executable, str(PROJECT / "benchmarks" / "bench_scale.py"), "--sizes", "300", "--events"]
    with subprocess.Popen(
        [*script, "--parts", "next_item"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None and "catalogue" in run.stderr.readline()
        run.terminate()
        told, _ = run.communicate(timeout=60)
    assert run.returncode == 143
    assert json.loads(told.splitlines()[-1])["sizes"]["300"]["catalogue"]["searches"] == 20_000


@pytest.mark.slow
def test_every_step_of_a_small_catalogue_gives_its_figures(
    bench: Bench,
    given: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a run takes them, but in one process."""
    plan, registry = bench("scale_plan"), bench("scale_registry")
    monkeypatch.setattr(plan, "BLEND_ITEMS", 300)
    monkeypatch.setattr(sys, "path", [*sys.path])
    given = given.model_copy(update={"peers": tmp_path, "vectors": "projections"})
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in plan.planned([400], [], ["search", "next_item", "retrieval"]):
        here = task.folder(given)
        here.mkdir(exist_ok=True)
        said = registry.made(task.step, here, given, task.size)()
        found.setdefault(task.kind, {}).setdefault(str(task.size), {})[task.step] = said
    bench("scale_table").show(found)
    of_size = json.loads(json.dumps(found))["sizes"]["400"]
    assert of_size["recall"]["recall_10"] > 0.99 and of_size["recall"]["recall_100"] > 0.99
    assert of_size["recall"]["meant_10"] > 0.5
    assert of_size["package"]["disk_mb"] >= of_size["package"]["graph_mb"] > 0
    for step in ("ask", "next_item_ask"):
        assert (
            min(of_size[step][name] for name in ("load_cpu_s", "one_p50_ms", "one_cpu_ms", "many_cpu_ms")) > 0
        )
    beside = of_size["retrieval"]
    assert {*beside["found"], *beside["absent"]} == {
        "reshelve",
        "FAISS flat",
        "FAISS HNSW",
        "FAISS IVF-PQ",
        "bm25s",
    }
    assert beside["found"]["reshelve"]["recall_100"] > 0.99 and beside["vectors"] == "projections"
    shown = capsys.readouterr().out
    assert "recall@100 of the exhaustive" in shown and "reshelve: CPU-ms a query" in shown
