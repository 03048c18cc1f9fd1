"""Tensors on the wire, and the promise that a client does not pay for TensorFlow's runtime."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reshelve.protocol.messages import from_tensor, to_tensor

_numbers = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.bool_])


@given(arrays.arrays(_numbers, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_numbers_round_trip(array: np.ndarray) -> None:
    found = from_tensor(to_tensor(array))
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@given(st.lists(st.text(max_size=5), max_size=4))
def test_text_round_trips(texts: list[str]) -> None:
    assert from_tensor(to_tensor(np.array(texts, dtype=object))).tolist() == texts


def test_values_outside_tensor_content_are_read_too() -> None:
    tensor = to_tensor(np.zeros((2, 2), dtype=np.float32))
    tensor.ClearField("tensor_content")
    tensor.float_val.extend([1.5, 2.5])  # the last value stands for the rest
    assert from_tensor(tensor).tolist() == [[1.5, 2.5], [2.5, 2.5]]


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        to_tensor(np.array([1j]))


@pytest.mark.slow
def test_clients_and_agents_start_without_tensorflow() -> None:
    modules = "reshelve.agent.agent, reshelve.rollout.release, reshelve.client.predict"
    check = f"import sys, {modules}; sys.exit(int('tensorflow' in sys.modules or 'torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0


@pytest.mark.slow
def test_tensorflow_imported_later_is_the_real_one_and_shares_the_messages() -> None:
    check = """
import numpy as np
from reshelve.protocol.messages import from_tensor, to_tensor
import tensorflow as tf
assert tf.make_ndarray(to_tensor(["é", "b"])).tolist() == ["é".encode(), b"b"]
assert from_tensor(tf.make_tensor_proto(tf.constant(["é"]))).tolist() == ["é"]
for values in ([[1.5, 2.5]], [1, 2], [True]):
    array = np.array(values)
    assert (tf.make_ndarray(to_tensor(array)) == array).all()
    assert (from_tensor(tf.make_tensor_proto(array)) == array).all()
assert (from_tensor(tf.make_tensor_proto(7.0, shape=[2, 2])) == 7).all()
"""
    done = subprocess.run([sys.executable, "-c", check], timeout=400, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
