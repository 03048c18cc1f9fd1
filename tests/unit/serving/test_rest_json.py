"""Tensors of any form through protos and JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reshelve.serving.rest_answers import from_answer
from reshelve.serving.rest_json import parse_body, to_inputs
from reshelve.serving.runtime import meta_graph_pb2, tensor_util, types_pb2
from reshelve.serving.saved_model_file import read_meta_graph
from reshelve.serving.servables import Answer
from reshelve.serving.serving_error import ServingError
from reshelve.serving.tensors import to_array, to_proto

FLOATS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))


@settings(max_examples=60, deadline=None)
@given(FLOATS)
def test_floats_survive_a_proto(array: np.ndarray) -> None:
    proto = to_proto(array, types_pb2.DT_FLOAT)
    assert len(proto.float_val) == array.size
    np.testing.assert_array_equal(to_array("x", proto), array)


@settings(max_examples=60, deadline=None)
@given(FLOATS)
def test_floats_survive_json_to_the_last_bit(array: np.ndarray) -> None:
    answer = Answer("serving_default", {"y": array}, {"y": types_pb2.DT_FLOAT})
    for row_form, key in ((True, "predictions"), (False, "outputs")):
        read = np.array(json.loads(from_answer(answer, row_form))[key], np.float32)
        np.testing.assert_array_equal(read, array)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int64, arrays.array_shapes(min_dims=1, max_dims=3, max_side=4)), st.booleans())
def test_a_request_gives_the_tensor_it_spells(array: np.ndarray, row_form: bool) -> None:
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_INT64)}
    body = json.dumps({"instances" if row_form else "inputs": array.tolist()}).encode()
    inputs, was_row_form = to_inputs(parse_body(body), infos)
    assert was_row_form is row_form
    assert inputs["x"].dtype == np.int64
    np.testing.assert_array_equal(inputs["x"], array)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4))
def test_bytes_survive_a_proto(values: list[bytes]) -> None:
    proto = to_proto(np.array(values, dtype=object), types_pb2.DT_STRING)
    assert tensor_util.MakeNdarray(proto).tolist() == values


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"[1]", "Is not object", id="no object"),
        pytest.param(
            b'{"instances": [[1], [1, 2]]}', "Expecting tensor size: 1 but got: 2", id="ragged rows"
        ),
        pytest.param(b'{"inputs": [[1], 2]}', "found at incorrect level: 2", id="ragged column"),
        pytest.param(b'{"inputs": [1], "instances": [1]}', "only one of", id="both forms"),
        pytest.param(b'{"instances": []}', "No values in 'instances' array", id="no rows"),
        pytest.param(b'{"inputs": [1.5]}', "is not of expected type: int64", id="fraction for an integer"),
        pytest.param(b'{"inputs": [true]}', "Type: True is not of expected type: int64", id="boolean"),
        pytest.param(b'{"inputs": [9223372036854775808]}', "is not of expected type: int64", id="too large"),
        pytest.param(b'{"inputs"', "JSON Parse error: ", id="cut off"),
        pytest.param(
            b'{"signature_name": 1}', "'signature_name' key must be a string value.", id="signature name"
        ),
    ],
)
def test_a_wrong_body_says_what_is_wrong(body: bytes, message: str) -> None:
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_INT64)}
    with pytest.raises(ServingError) as refused:
        to_inputs(parse_body(body), infos)
    assert message in refused.value.message


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_as_a_saved_model_end_in_a_known_code(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-bytes"
    directory.mkdir(exist_ok=True)
    (directory / "saved_model.pb").write_bytes(content)
    with pytest.raises(ServingError) as refused:
        read_meta_graph(directory)
    assert refused.value.number in (5, 11, 15)
