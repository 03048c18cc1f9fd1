"""`make bench-scale` in small: what it draws, and the exhaustive answers that it compares with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

REAL = [f"{colour} thing{number} mug no{number}" for colour in ("red", "blue") for number in range(60)]


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
