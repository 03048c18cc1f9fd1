"""Tensors of any form through protos and JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reshelve.modelserver.json_text import shown
from reshelve.modelserver.rest_answers import from_answer
from reshelve.modelserver.rest_json import parse_body, signature_name, to_inputs
from reshelve.modelserver.runtime import meta_graph_pb2, tensor_pb2, tensor_util, types_pb2
from reshelve.modelserver.saved_model_file import read_meta_graph
from reshelve.modelserver.servables import PredictOutputs
from reshelve.modelserver.serving_error import ServingError
from reshelve.modelserver.tensors import to_array, to_proto

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
    answer = PredictOutputs("serving_default", {"y": array}, {"y": types_pb2.DT_FLOAT})
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
    assert to_array("x", proto).tolist() == values


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
              "bool", "complex64", "complex128"]
)  # fmt: skip
@pytest.mark.parametrize("packed", [True, False], ids=["content", "values"])
def test_every_type_of_number_is_read(dtype: str, packed: bool) -> None:
    array = np.array([[0, 1, 5], [7, 1, 3]]).astype(dtype)
    proto = tensor_util.make_tensor_proto(array)
    if not packed:
        field = next(name for name, types in FIELDS.items() if dtype in types)
        values = array.view(np.uint16) if field == "half_val" else array
        flat = values.ravel().tolist()
        proto.tensor_content = b""
        getattr(proto, field).extend(
            [part for value in flat for part in (value.real, value.imag)] if "complex" in dtype else flat
        )
    np.testing.assert_array_equal(to_array("x", proto), array)


FIELDS = {
    "half_val": ["float16"], "float_val": ["float32"], "double_val": ["float64"], "int64_val": ["int64"],
    "int_val": ["int8", "int16", "int32", "uint8", "uint16"], "uint32_val": ["uint32"], "uint64_val": ["uint64"],
    "bool_val": ["bool"], "scomplex_val": ["complex64"], "dcomplex_val": ["complex128"],
}  # fmt: skip

PROTOS = st.builds(
    tensor_pb2.TensorProto,
    dtype=st.sampled_from([*types_pb2.DataType.values(), 999]),
    tensor_content=st.binary(max_size=12),
    float_val=st.lists(st.floats(width=32), max_size=3),
    int_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    half_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    string_val=st.lists(st.binary(max_size=3), max_size=3),
    scomplex_val=st.lists(st.floats(width=32), max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(PROTOS, st.lists(st.integers(-2, 4) | st.sampled_from([2**31, 2**62]), max_size=4))
def test_any_tensor_is_read_or_refused(proto: tensor_pb2.TensorProto, shape: list[int]) -> None:
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    try:
        array = to_array("x", proto)
    except ServingError as refused:
        assert (refused.code.name, refused.message) == ("INVALID_ARGUMENT", "tensor parsing error: x")
    else:
        assert array is None or list(array.shape) == shape


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda value: (
        st.lists(value, max_size=3) | st.dictionaries(st.sampled_from(["x", "b64"]), value, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(types_pb2.DataType.values()), st.sampled_from(["instances", "inputs"]), VALUES)
def test_any_body_is_read_or_refused(dtype: int, form: str, value: object) -> None:
    infos = {"x": meta_graph_pb2.TensorInfo(dtype=dtype)}
    try:
        inputs, _ = to_inputs(parse_body(json.dumps({form: value}).encode()), infos)
    except ServingError as refused:
        assert refused.code.name in ("INVALID_ARGUMENT", "UNIMPLEMENTED")
    else:
        assert set(inputs) == {"x"}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"), (-0.0, "-0.0"), (1.5, "1.5"), (100.0, "100.0"), (1e20, "100000000000000000000.0"),
        (1e21, "1e21"), (1.25e-5, "0.0000125"), (1e-7, "1e-7"), (-1.234e-10, "-1.234e-10"), (2**64, "18446744073709552000.0"),
        (2**63, "9223372036854775808"),
    ],
)  # fmt: skip
def test_a_number_is_shown_as_the_parser_holds_it(number: float, text: str) -> None:
    assert shown(number) == text


def test_values_are_shown_on_lines_of_their_own() -> None:
    value = (("a", [1, [], "é"]), ("b", (("c", None), ("d", ()))))
    assert (
        shown(value) == '{\n    "a": [1, [], "é"],\n    "b": {\n        "c": null,\n        "d": {}\n    }\n}'
    )


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
        document = parse_body(body)
        signature_name(document)
        to_inputs(document, infos)
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
