"""What a try holds is given back before the next one begins."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # it rounds a model a dozen times

HEAD = 100_000 * 64 * 4 / 2**20  # MB of the float weights that every session holds
WARM, TRIES = 2, 5
# In a process of its own: nothing else's memory is counted.
CODE = """
import sys
import numpy as np, psutil
from reshelve.compression import rounding
from reshelve.compression.calibration import calibrate
from reshelve.compression.measure import GraphScorer
from reshelve.config.compression import Int8Step
from reshelve.export.layers import FloatLayers
from reshelve.model.description import Architecture, ModelForm
from reshelve.model.trained import TrainedModel
from reshelve.export.batches import batches
from transformers import BertConfig, BertModel

sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50)
random = np.random.default_rng(1)
names = BertModel(BertConfig(**sizes, max_position_embeddings=16), add_pooling_layer=False).state_dict()
tensors = {f"encoder.{name}": random.normal(0, 0.2, t.shape).astype("f") for name, t in names.items()}
for name, shape in {"hidden": (64, 32), "items": (100_000, 64)}.items():
    tensors[f"{name}.weight"] = random.normal(0, 0.2, shape).astype("f")
    tensors[f"{name}.bias"] = np.zeros(shape[0], "f")
shape = Architecture(**sizes, max_position_embeddings=16)
model = TrainedModel(ModelForm(kind="next_item", pooling="mean", max_length=16, architecture=shape, items=100_000), tensors)
rows = [([1, n + 2, 3], None) for n in range(8)]
ranges = calibrate(model, batches(rows))
with GraphScorer(model, FloatLayers(model)) as score:
    expected = rounding.scores(score, rows)
megabytes = lambda: psutil.Process().memory_info().rss / 2**20
for tries in map(int, sys.argv[1:]):
    step = Int8Step(step="int8", alphas=[0.3 + 0.05 * n for n in range(tries)])
    rounding.choose(step, model, ranges, rows, expected)
    print("used", megabytes())
"""


def test_memory_does_not_grow_with_the_strengths_that_are_tried() -> None:
    found = subprocess.run(
        [sys.executable, "-c", CODE, str(WARM), str(TRIES), str(TRIES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    said = [line.split() for line in found.stdout.splitlines()]
    _, first, second = (float(words[1]) for words in said if words[0] == "used")
    assert second - first < 3 * HEAD, found.stdout
