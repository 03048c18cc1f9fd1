"""`make bench-scale` in small: what it draws, what it compares with, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from reshelve.settings import PROJECT

REAL = [f"{colour} thing{number} mug no{number}" for colour in ("red", "blue") for number in range(60)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """`bench("scale_catalogue")`: one of the benchmark's files."""
    import importlib

    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    yield importlib.import_module


Bench = Callable[[str], ModuleType]


class TestCatalogue:
    def test_titles_are_real_ones_first_and_none_is_there_twice(self, bench: Bench) -> None:
        draw = bench("scale_catalogue").titles
        few, many = draw(50, REAL, 1), draw(400, REAL, 1)
        assert set(few) < set(REAL) and set(REAL) < set(many)
        assert len(set(many)) == 400
        words = {word for title in REAL for word in title.split()}
        assert {word for title in many for word in title.split()} <= words

    def test_a_smaller_catalogue_is_the_beginning_of_a_larger_one(self, bench: Bench) -> None:
        draw = bench("scale_catalogue").titles
        assert draw(400, REAL, 1) == draw(400, REAL, 1)
        assert draw(400, REAL, 1)[:300] == draw(300, REAL, 1)
        assert draw(400, REAL, 1)[:50] == draw(50, REAL, 1)
        assert draw(400, REAL, 1) != draw(400, REAL, 2)

    def test_what_cannot_be_recombined_ends_with_a_number(self, bench: Bench) -> None:
        with pytest.raises(ValueError, match="3 titles cannot be recombined into 100"):
            bench("scale_catalogue").titles(100, ["a b", "c d", "e"], 1)

    def test_without_data_titles_are_those_of_the_sample(self, bench: Bench, tmp_path: Path) -> None:
        found = bench("scale_catalogue").real_titles(tmp_path)
        assert len(set(found)) == len(found) > 1000
        assert not [title for title in found if title != " ".join(title.split()) or not title]

    def test_searches_repeat_and_are_meant(self, bench: Bench) -> None:
        catalogue = bench("scale_catalogue")
        names = catalogue.titles(200, REAL, 1)
        one, again = (catalogue.shop(names, 5000, 50, 3) for _ in range(2))
        assert one.texts == sorted(set(one.texts)) == again.texts
        assert np.array_equal(one.text, again.text) and one.questions == again.questions
        assert set(one.text.tolist()) == set(range(len(one.texts)))
        counts = np.sort(np.bincount(one.text))[::-1]
        assert counts[: len(counts) // 10].sum() > 0.4 * len(
            one.text
        )  # few queries are much of what is asked
        assert one.ago.min() >= 1 and one.ago.max() <= catalogue.DAYS and one.items.max() < 200
        assert (one.items < 50).mean() > 0.5
        new = [q for q in range(50) if q % 5 == 4]
        for question in new:
            title = names[one.meant[question]].lower().split()
            assert set(one.questions[question].split()) <= set(title)
        known = {word for title in names for word in title.lower().split()}
        assert {word for q in range(50) if q % 5 == 3 for word in one.questions[q].split()} - known


class TestExhaustive:
    """The offline reference beside the features as the graph computes them, every item for every query."""

    ITEMS = 500

    @pytest.fixture
    def made(self, bench: Bench, tmp_path: Path) -> Any:
        catalogue, internals = bench("scale_catalogue"), bench("scale_internals")
        names = catalogue.titles(
            self.ITEMS, [*catalogue.real_titles(tmp_path), "日本 茶碗", "Café: crème 3"], 7
        )
        names[3] = ""  # an untitled item
        drawn = catalogue.shop([name or "x" for name in names], 6000, 40, 7)
        tables = internals.make_tables(drawn, names)
        tables.write(tmp_path)
        queries = [*drawn.questions, "", "who knows zzz", "日本", "!?", "x" * 300]
        return tables, internals.read_memory(tmp_path), internals.cut(queries), queries

    @pytest.mark.slow
    @pytest.mark.parametrize("block", [50_000, 64], ids=["at once", "in blocks"])
    def test_features_are_the_dense_ones(self, bench: Bench, made: Any, block: int) -> None:
        import tensorflow as tf

        from reshelve.features.evidence import SearchEvidence

        tables, memory, asked, queries = made
        dense = SearchEvidence(tables).features(tf.constant(queries)).numpy()
        everything = bench("scale_reference").Exhaustive(memory)
        for query in range(len(queries)):
            found = np.concatenate([part for _, part in everything.features(asked, query, block)])
            assert found.shape == dense[query].shape
            np.testing.assert_allclose(found, dense[query], rtol=1e-4, atol=2e-4, err_msg=queries[query])

    @pytest.mark.slow
    def test_scores_are_the_blends(self, bench: Bench, made: Any, tmp_path: Path) -> None:
        import tensorflow as tf

        from reshelve.features.evidence import SearchEvidence

        tables, memory, asked, queries = made
        internals, reference = bench("scale_internals"), bench("scale_reference")
        dense = SearchEvidence(tables).features(tf.constant(queries)).numpy()
        chosen = np.zeros(dense.shape[:2], np.float32)
        chosen[np.arange(len(queries)), np.arange(len(queries))] = 1
        internals.fit_blend(dense, chosen, 1, tmp_path / "blend.safetensors")
        blend = internals.read_blend(tmp_path / "blend.safetensors")
        # Whatever the encoder says, it has no weight.
        said = np.random.default_rng(0).normal(0, 5, (*dense.shape[:2], 1)).astype(np.float32)
        expected = blend.scores(tf.constant(np.concatenate([dense, said], axis=2))).numpy()
        everything = reference.Exhaustive(memory)
        for query in range(len(queries)):
            found = everything.scores(asked, query, blend, block=64)
            np.testing.assert_allclose(found, expected[query], rtol=1e-3, atol=2e-3)

    def test_the_best_are_those_of_top_k(self, bench: Bench) -> None:
        scores = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0], np.float32)
        assert bench("scale_reference").best(scores, 4).tolist() == [1, 3, 2, 4]
        assert bench("scale_reference").best(scores, 9).tolist() == [1, 3, 2, 4, 5, 0]


def test_recall_counts_what_of_the_best_is_found(bench: Bench) -> None:
    wanted = np.arange(200).reshape(2, 100)
    found = [list(range(99, -1, -1)), [0, *range(100, 150)]]
    assert bench("scale_shares").shares(found, wanted, np.array([95, 3])) == {
        "recall_10": pytest.approx((0 + 0.9) / 2), "recall_100": pytest.approx((1 + 0.5) / 2), "meant_10": 0.5
    }  # fmt: skip


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
        found = plan.run(tasks, given, [sys.executable, "-c", script], 10)
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
    names = [*REAL, "red lantern of paper"]
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


@pytest.mark.slow
def test_a_run_ends_with_a_table_and_a_json_line(tmp_path: Path) -> None:
    """The real script over few products: every step that a catalogue of any size takes."""
    command = [
        sys.executable, str(PROJECT / "benchmarks" / "bench_scale.py"), "--sizes", "300", "--events",
        "--parts", "search", "next_item", "retrieval", "--width", "32", "--rounds", "20", "--questions", "20",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    steps = line["sizes"]["300"]
    assert not [name for name, said in steps.items() if said.keys() & {"failed", "skipped"}], steps
    assert steps["recall"]["recall_10"] > 0.99 and steps["recall"]["recall_100"] > 0.99
    assert steps["ask"]["one_p50_ms"] > 0 and steps["package"]["disk_mb"] >= steps["package"]["graph_mb"]
    assert "no --peers DIR" in steps["retrieval"]["absent"]["bm25s"]
    assert "recall@100 of the exhaustive" in done.stdout
    assert "[3/" in done.stderr
