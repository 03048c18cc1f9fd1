"""Another precision is one class and one line of the registry: this file adds one, and ships a model in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from reshelve.errors import DataError
from reshelve.export.candidate import Candidate, read_compression
from reshelve.export.graph import RankerGraph
from reshelve.export.layers import FloatLayers, held
from reshelve.export.precisions.base import Precision
from reshelve.export.precisions.float32 import Float32
from reshelve.export.precisions.registry import PRECISIONS
from reshelve.lineage.run import Run
from reshelve.model.trained import TrainedModel


class HalfLayers(FloatLayers):
    def dense(self, rows: tf.Tensor, part: str) -> tf.Tensor:
        weight, bias = self.model.dense(part)
        return tf.matmul(rows, tf.cast(held(weight.astype(np.float16)), tf.float32)) + held(bias)


class Half(Precision):
    """Weights of products in IEEE's 16 bits."""

    name = "float16"

    def layers(self, model: TrainedModel) -> FloatLayers:
        return HalfLayers(model)


def test_a_model_ships_in_another_precision(
    trained_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = trained_run("next_item", "cls").stage("train").directory
    model = TrainedModel.load(trained)
    candidate = Candidate(model, Half())
    assert not candidate.as_trained and Candidate(model).as_trained
    assert candidate.save(tmp_path).precision == "float16"
    assert read_compression(tmp_path).precision == "float16" and not read_compression(tmp_path).scales
    with pytest.raises(DataError, match="precision 'float16' is not known"):
        Candidate.load(tmp_path, trained)
    monkeypatch.setitem(PRECISIONS, Half.name, Half)
    shipped = Candidate.load(tmp_path, trained)
    assert isinstance(shipped.precision, Half)
    ids, lengths = tf.constant([[101, 2000, 102]]), tf.constant([3])
    answers = [
        RankerGraph(model, layers).logits(ids, lengths, None).numpy()
        for layers in (shipped.layers(), Float32().layers(model))
    ]
    assert 0 < np.abs(answers[0] - answers[1]).max() < 1e-2
