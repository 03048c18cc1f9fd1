"""Titles found by a query's words and spelling, against dense sums over all titles; and what bounds the cost of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.features.asked import QueryReader
from reshelve.features.evidence import SHARPNESS
from reshelve.features.postings import Postings
from reshelve.features.tables import Corpus, SearchTables
from reshelve.features.title_search import SOURCES, TitleSearch, telling

CorpusOf = Callable[..., Corpus]

WORDS = ["red", "lantern", "gnome", "lanterns", "garden", "tiny", "böhm", "山田", "x200", "mugs"]
MOST = {"bm25": 5, "covered": 3, "cosine": 7}
_TIE, _POPULAR = 1e-3, 0.05


def dense(tables: SearchTables, amounts: np.ndarray, words: float) -> list[np.ndarray]:
    """Of one query the scores of all titles, -inf where nothing is shared: `amounts` [V, 2] are idf² and idf of its words."""
    every = telling(tables, np.arange(len(tables.popularity), dtype=np.int32))
    held_by = np.zeros((len(tables.popularity), len(tables.grams)))
    held_by[every.columns, np.repeat(np.arange(len(tables.grams)), np.diff(every.starts))] = 1
    alike, held = (held_by @ amounts).T
    popularity = np.log(tables.popularity)
    inverse_length, shorter = tables.title.T
    return [
        np.where(held > 0, held * shorter + _TIE * popularity, -np.inf),
        np.where(held > 0, held / words + _POPULAR * popularity, -np.inf),
        np.where(alike > 0, alike * inverse_length, -np.inf),
    ]


texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


@pytest.mark.slow
@given(titles=st.lists(texts, min_size=1, max_size=14), queries=st.lists(texts, min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_the_best_titles_are_those_of_dense_sums(
    corpus_of: CorpusOf, today: date, titles: list[str], queries: list[str]
) -> None:
    tables = corpus_of(titles, (1, 0, 2.0, "red"), (2, len(titles) - 1, 1.0, "tiny mug")).tables(today)
    asked = QueryReader(tables, SHARPNESS).read(tf.constant(queries))
    found = TitleSearch(tables).best(asked, MOST)
    grams = asked.grams
    for row in range(len(queries)):
        amounts = np.zeros((len(tables.grams), 2))
        mine = grams.rows.numpy() == row
        amounts[grams.ids.numpy()[mine]] = grams.amounts.numpy()[mine][:, [0, 2]]
        expected = dense(tables, amounts, float(grams.words[row]))
        for name, scores in zip(SOURCES, expected, strict=True):
            places = found[name].numpy()[row]
            there = places[places < len(titles)]
            best = np.sort(scores[np.isfinite(scores)])[::-1][: MOST[name]]
            # Titles of one score may change places.
            assert np.allclose(np.sort(scores[there])[::-1], best, rtol=1e-4, atol=1e-5), (name, queries[row])
            assert len(set(there)) == len(there) and places.shape == (MOST[name],)


def of_one_word(tables: SearchTables, items: int) -> SearchTables:
    """A catalogue of so many titles, each with the first gram alone."""
    columns = np.zeros(items, np.int32)
    titles = Postings(
        np.arange(items + 1, dtype=np.int32), columns, np.empty((items, 0), np.float32), len(tables.grams)
    )
    popularity = np.full(items, 1 / items, np.float32)
    return dataclasses.replace(
        tables, titles=titles, title=np.ones((items, 2), np.float32), popularity=popularity
    )


@pytest.mark.slow
@pytest.mark.parametrize("query", ["red", "red garden", "garden lantern red"])
def test_a_query_of_the_commonest_words_reads_no_more_of_a_larger_catalogue(
    corpus_of: CorpusOf, today: date, query: str
) -> None:
    read = []
    for times in (40, 400):
        tables = corpus_of(["red garden lantern", "red garden", "tiny lantern red"] * times).tables(today)
        search = TitleSearch(tables, titles_of=50, read=90)
        assert np.diff(search.starts.numpy()).max() <= 50
        grams = QueryReader(tables, SHARPNESS).read(tf.constant([query])).grams
        titles, owner = search.touched(grams.ids)
        assert len(titles) == len(owner) <= 90
        read.append(len(titles))
    assert read[0] == read[1] >= 50


@pytest.mark.slow
def test_of_a_query_the_rarest_are_read_first(corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(["red mug"] * 60 + ["red gnome"]).tables(today)
    asked = QueryReader(tables, SHARPNESS).read(tf.constant(["red gnome"]))
    search = TitleSearch(tables, read=90)
    titles, owner = search.touched(asked.grams.ids)
    assert len(titles) == 90
    starts, ids = search.starts.numpy(), asked.grams.ids.numpy()
    rare = np.flatnonzero(starts[ids + 1] - starts[ids] == 1)
    assert len(rare) > 10 and set(rare.tolist()) <= set(owner.numpy().tolist())
    assert search.best(asked, MOST)["bm25"][0, 0] == 60


@pytest.mark.slow
def test_what_holds_two_common_words_is_found_though_neither_is_read_whole(
    corpus_of: CorpusOf, today: date
) -> None:
    titles = [
        *(f"red thing no {n} of the long row" for n in range(300)),
        *(f"garden thing no {n} of the long row" for n in range(300)),
        "garden red",
    ]
    tables = corpus_of(titles).tables(today)
    asked = QueryReader(tables, SHARPNESS).read(tf.constant(["red garden"]))
    found = TitleSearch(tables, titles_of=20).best(asked, MOST)
    assert found["bm25"][0, 0] == 600 and found["covered"][0, 0] == 600


@pytest.mark.slow
def test_no_step_of_a_query_is_as_wide_as_the_catalogue(corpus_of: CorpusOf, today: date) -> None:
    """Else its memory and time would follow the catalogue. What is held in variables may; reading a part of one is no step."""
    items, small = 4_099, corpus_of(["red garden lantern"]).tables(today)
    asked = QueryReader(small, SHARPNESS).read(tf.constant(["red"] * 4))
    search = TitleSearch(of_one_word(small, items))
    traced: Any = tf.function(lambda: search.best(asked, MOST), autograph=False).get_concrete_function()
    graph = traced.graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    assert len(nodes) > 50
    wide = [
        (node.op, [dim.size for dim in shape.dim])
        for node in nodes
        for shape in node.attr["_output_shapes"].list.shape
        if any(dim.size >= items for dim in shape.dim)
    ]
    assert wide == []
