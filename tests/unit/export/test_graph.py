"""The graph outside of any version: what it reads, and how often."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import torch

from reshelve.compression.rounding import request_like
from reshelve.export.batches import padded
from reshelve.export.graph import RankerGraph
from reshelve.export.layers import FloatLayers
from reshelve.export.tokenizer import TokenBatch
from reshelve.lineage.run import Run
from reshelve.model.trained import TrainedModel
from reshelve.training.model import RankerModel


class CountingLayers(FloatLayers):
    """Float layers that count the tokens they embed; run without a function, so that every call is seen."""

    tokens = 0

    def embed(self, ids: tf.Tensor) -> tf.Tensor:
        self.tokens += int(tf.size(ids))
        return super().embed(ids)


@pytest.fixture
def towers(trained_run: Callable[..., Run]) -> TrainedModel:
    model = TrainedModel.load(trained_run("pair", "mean").stage("train").directory)
    return TrainedModel(model.document.model_copy(update={"towers": True}), model.tensors)


def pairs(*sides: tuple[list[int], list[int]]) -> TokenBatch:
    """[CLS] left [SEP] right [SEP]."""
    return padded(
        [
            ([101, *left, 102, *right, 102], [0] * (len(left) + 2) + [1] * (len(right) + 1))
            for left, right in sides
        ]
    )


def test_towers_read_one_query_once_for_all_its_items(towers: TrainedModel) -> None:
    items = [[2000, 2001], [2002], [2003, 2004, 2005]]
    layers = CountingLayers(towers)
    together = RankerGraph(towers, layers).logits(*pairs(*(([1000, 1001], item) for item in items))).numpy()
    assert layers.tokens == 1 * 4 + 3 * 5, "one query of 4 tokens, three titles padded to 5"
    alone = [RankerGraph(towers, layers).logits(*pairs(([1000, 1001], item))).numpy()[0] for item in items]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_towers_read_every_query_where_they_differ(towers: TrainedModel) -> None:
    asked = [([1000, 1001], [2000]), ([1000, 1002], [2000]), ([1000], [2000])]
    layers = CountingLayers(towers)
    together = RankerGraph(towers, layers).logits(*pairs(*asked)).numpy()
    assert layers.tokens == 3 * 4 + 3 * 3
    alone = [RankerGraph(towers, layers).logits(*pairs(pair)).numpy()[0] for pair in asked]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together[0] != pytest.approx(together[1], abs=2e-5)


@pytest.mark.parametrize(("kind", "pooling"), [("pair", "cls"), ("next_item", "mean")])
def test_a_text_scores_alike_alone_padded_and_among_others(
    trained_run: Callable[..., Run], kind: str, pooling: str
) -> None:
    model = TrainedModel.load(trained_run(kind, pooling).stage("train").directory)
    graph = RankerGraph(model, FloatLayers(model))
    batch = pairs(([1000, 1001], [2000, 2001]), ([1002], [2002]))
    among = graph.logits(*batch).numpy()
    for row, length in enumerate(batch.lengths):
        one = [part[row : row + 1] for part in batch]
        padded_row = graph.logits(*one).numpy()
        bare = graph.logits(one[0][:, :length], one[1], one[2][:, :length]).numpy()
        np.testing.assert_allclose(padded_row, among[row : row + 1], atol=1e-5)
        np.testing.assert_allclose(bare, among[row : row + 1], atol=1e-5)


def test_what_a_request_costs_is_timed_with_both_texts_of_its_pairs(towers: TrainedModel) -> None:
    """One query with its candidates: with segments of zeros the right text was empty, and cost nothing."""
    examples = [([101, 1000, 102, *range(2000, 2008), 102], [0] * 3 + [1] * 9)] * 4
    asked = request_like(towers, examples)
    assert asked.ids.shape == (32, 24) and asked.types is not None
    assert asked.types.sum(axis=1).tolist() == [18] * 32, "a quarter is the query's, as in the examples"
    layers = CountingLayers(towers)
    RankerGraph(towers, layers).logits(*asked)
    assert layers.tokens == 1 * 6 + 32 * (18 + 1), "the query is read once, every title with a [CLS]"


def test_titles_score_candidates_as_they_score_the_catalogue_and_as_torch_does(
    trained_run: Callable[..., Run],
) -> None:
    directory = trained_run("search", "mean", {"model.head": "titles"}).stage("train").directory
    model = TrainedModel.load(directory)
    graph = RankerGraph(model, FloatLayers(model))
    batch = padded([([101, 1000, 1001, 102], None), ([101, 1002, 102], None)])
    everything = graph.logits(*batch).numpy()
    present = torch.arange(batch.ids.shape[1])[None] < torch.from_numpy(batch.lengths)[:, None]
    with torch.no_grad():
        expected = RankerModel.load(directory)(torch.from_numpy(batch.ids).long(), present.long())
    np.testing.assert_allclose(everything, expected.numpy(), atol=1e-4)
    assert graph.titles is not None
    vector = graph.titles.vector(graph.pooled(*batch))
    np.testing.assert_allclose(np.linalg.norm(vector.numpy(), axis=1), 1.0, atol=1e-5)
    places = np.array([[3, 0, 3], [29, 1, 7]], np.int32)
    some = graph.titles.title_logits(vector, tf.constant(places)).numpy()
    without = everything - model["items.bias"]
    np.testing.assert_allclose(some, np.take_along_axis(without, places, axis=1), atol=1e-4)


def test_a_single_text_is_timed_without_segments(trained_run: Callable[..., Run]) -> None:
    model = TrainedModel.load(trained_run("next_item", "cls").stage("train").directory)
    assert request_like(model, [([101, 1000, 102], None)]).types is None
