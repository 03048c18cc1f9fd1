"""The borders of a REST request's body: what JSON a model server takes, and how it refuses what it does not."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/m:predict"
DEEP = "[" * 300 + "1" + "]" * 300
ROWS, COLUMNS = '{"instances": %s}', '{"inputs": %s}'
KINDS = '{"signature_name": "kinds", "inputs": {"byte": [%s], "whole": [%s], "flag": [true]}}'
PARSE = "JSON Parse error: "
TOO_BIG = PARSE + "Number too big to be stored in double."


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        pytest.param('{"instances": [16777217, 123456789]}', {"predictions": [50331648.0, 370370368.0]}, id="integers beyond float"),
        pytest.param('{"instances": [1e-400, -0]}', {"predictions": [1.0, 1.0]}, id="nearly nothing"),
        pytest.param('{"instances": [123456789012345678901234567890]}', {"predictions": [pytest.approx(3.7037e29, rel=1e-3)]}, id="integer beyond 64 bits"),
        pytest.param('{"instances": [1]} and more', {"predictions": [4.0]}, id="text behind"),
        pytest.param('\ufeff{"instances": [1]}', {"predictions": [4.0]}, id="byte order mark"),
        pytest.param('{"instances": [1], "instances": [2]}', {"predictions": [4.0]}, id="the first of two"),
        pytest.param('{"inputs": [1], "more": {"b64": 1}}', {"outputs": [4.0]}, id="a key of its own"),
        pytest.param('{"inputs": {"x": [1], "more": [2]}}', {"outputs": [4.0]}, id="an input of its own"),
        pytest.param('{"instances": [[1, 2], [3, 4]]}', {"predictions": [[4.0, 7.0], [10.0, 13.0]]}, id="a rank of its own"),
        pytest.param('{"instances": [{"x": 1, "x": 2}, {"x": 3}]}', {"predictions": [4.0, 7.0]}, id="a name twice in a row"),
        pytest.param('{"inputs": []}', {"outputs": []}, id="nothing"),
        pytest.param('{"signature_name": "scalar", "inputs": 1.5}', {"outputs": 3.0}, id="scalar"),
        pytest.param(KINDS % ("300, -1, 256", 7), {"outputs": {"byte": [44, 255, 0], "whole": [7], "flag": [True]}}, id="cut to a byte"),
        pytest.param(KINDS % (1, -(2**63)), {"outputs": {"byte": [1], "whole": [-(2**63)], "flag": [True]}}, id="smallest integer"),
        pytest.param('{"signature_name": "text", "instances": [{"b64": "dM OocG90"}]}', {"predictions": [{"raw_bytes": {"b64": "dMOocG90"}, "upper": "TÈPOT"}]}, id="b64 with a space"),
        pytest.param('{"signature_name": "text", "instances": [{"b64": "dGU"}, {"b64": "dGU."}]}', {"predictions": [{"raw_bytes": {"b64": "dGU="}, "upper": "TE"}] * 2}, id="b64 with other padding"),
        pytest.param('{"signature_name": "text", "instances": ["\\ud83d\\ude00"]}', {"predictions": [{"raw_bytes": {"b64": "8J+YgA=="}, "upper": "😀"}]}, id="surrogate pair"),
    ],
)  # fmt: skip
def test_rest_takes(served: Any, body: str, answer: Any) -> None:
    assert served.rest(PREDICT, body.encode()) == (200, answer)


@pytest.mark.parametrize(
    ("number", "y"),
    [("1e39", "Infinity"), ("-1e39", "-Infinity"), ("NaN", "NaN"), ("Inf", "Infinity"), ("-Inf", "-Infinity"),
     ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("-NaN", "NaN")],
)  # fmt: skip
def test_numbers_that_are_not_finite(served: Any, number: str, y: str) -> None:
    status, _, content = served.http("POST", PREDICT, f'{{"instances": [{number}, 1]}}'.encode())
    assert status == 200
    assert re.sub(r"\s", "", content.decode()) == f'{{"predictions":[{y},4.0]}}'


def test_a_body_that_is_no_utf8_is_taken_as_it_is(served: Any) -> None:
    body = '{"signature_name": "text", "instances": ["tèapot"]}'.encode("latin-1")
    status, _, content = served.http("POST", PREDICT, body)
    assert status == 200
    assert base64.b64encode("tèapot".encode("latin-1")) in content


def test_a_packed_body_is_unpacked(served: Any) -> None:
    packed = {"Content-Encoding": "gzip"}
    body = b'{"instances": [1]}'
    assert json.loads(served.http("POST", PREDICT, gzip.compress(body), packed)[2]) == {"predictions": [4.0]}
    status, _, content = served.http("POST", PREDICT, body, packed)
    assert (status, json.loads(content)) == (400, {"error": PARSE + "The document is empty"})


TEXT = '{"signature_name": "text", "instances": [%s]}'


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param('{"instances": 1}', 400, 'JSON Value: {\n    "instances": 1\n} Expecting \'instances\' to be an list/array', id="no list"),
        pytest.param('{"instances": {"x": [1]}}', 400, "Expecting 'instances' to be an list/array", id="an object"),
        pytest.param('{"instances": []}', 400, 'JSON Value: {\n    "instances": []\n} No values in \'instances\' array', id="no rows"),
        pytest.param('{"instances": [1], "inputs": [1]}', 400, "expecting only one of 'inputs' or 'instances' keys to exist", id="both forms"),
        pytest.param("[1]", 400, "JSON Value: [1] Is not object", id="no object"),
        pytest.param("   ", 400, PARSE + "The document is empty. at offset: 3", id="white space"),
        pytest.param("\0", 400, PARSE, id="zero byte"),
        pytest.param('{"instances": [1e400]}', 400, TOO_BIG, id="huge exponent"),
        pytest.param('{"instances": [%s]}' % ("9" * 400), 400, TOO_BIG, id="huge integer"),
        pytest.param('{"instances": [%s]}' % ("9" * 5000), 400, TOO_BIG, id="integer of 5,000 digits"),
        pytest.param('{"instances": [01]}', 400, PARSE, id="leading zero"),
        pytest.param('{"instances": [+1]}', 400, PARSE, id="plus"),
        pytest.param('{"instances": [.5]}', 400, PARSE, id="no digit"),
        pytest.param('{"instances": [1,]}', 400, PARSE, id="comma"),
        pytest.param("{'instances': [1]}", 400, PARSE, id="single quotes"),
        pytest.param('{"instances": [infinity]}', 400, PARSE, id="small letters"),
        pytest.param(ROWS % DEEP, 400, "", id="300 levels"),
        pytest.param(COLUMNS % DEEP, 400, "", id="300 levels by column"),
        pytest.param(COLUMNS % ("[" * 100_000), 400, "", id="100,000 levels"),
        pytest.param('{"instances": [true]}', 400, "JSON Value: true Type: True is not of expected type: float", id="boolean"),
        pytest.param('{"instances": [null]}', 400, "JSON Value: null Type: Null is not of expected type: float", id="null"),
        pytest.param('{"instances": [{"b64": "AAAA"}]}', 400, 'JSON Value: {\n    "b64": "AAAA"\n} Type: Object is not of expected type: float', id="b64 for a number"),
        pytest.param('{"instances": [[1], [1, 2]]}', 400, "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 1 but got: 2", id="ragged rows"),
        pytest.param('{"inputs": [[1], [1, 2]]}', 400, "Encountered list at unexpected size: 2 at level: 1 expected size: 1", id="ragged columns"),
        pytest.param('{"inputs": [1, [2]]}', 400, "Encountered list at unexpected level: 1 expected < 1", id="list among numbers"),
        pytest.param('{"instances": [{"x": 1}, 2]}', 400, "Expecting object but got list at item 1 of input list", id="value among objects"),
        pytest.param('{"instances": [1, {"x": 1}]}', 400, "Expecting value/list but got object at item 1 of input list", id="object among values"),
        pytest.param(KINDS % ("1", 2**63), 400, "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64", id="beyond int64"),
        pytest.param(KINDS % ("1", "1.0"), 400, "JSON Value: 1.0 Type: Number is not of expected type: int64", id="fraction"),
        pytest.param(KINDS % ("1", "1e2"), 400, "JSON Value: 100.0 Type: Number is not of expected type: int64", id="exponent"),
        pytest.param(KINDS % ("1", "NaN"), 400, "JSON Value:  Type: Number is not of expected type: int64", id="no number"),
        pytest.param(KINDS % (2**31, "1"), 400, "is not of expected type: uint8", id="beyond int32 for a byte"),
        pytest.param(TEXT % "1", 400, "JSON Value: 1 Type: Number is not of expected type: string", id="number for text"),
        pytest.param(TEXT % '{"b64": "A"}', 400, "Unable to base64 decode", id="b64 of one character"),
        pytest.param(TEXT % '{"b64": "AAAA="}', 400, "Unable to base64 decode", id="b64 with wrong padding"),
        pytest.param(TEXT % '{"b64": "AA!A"}', 400, "Unable to base64 decode", id="b64 of other characters"),
        pytest.param(TEXT % '"\\ud800"', 400, PARSE + "The surrogate pair in string is invalid.", id="half a pair"),
        pytest.param('{"signature_name": "text", "inputs": [{"b64": 1}]}', 400, "not formatted correctly for base64 data", id="b64 of a number"),
        pytest.param('{"signature_name": ["text"], "inputs": [1]}', 400, "'signature_name' key must be a string value.", id="signature name"),
        pytest.param('{"signature_name": "half", "inputs": [1]}', 501, "Conversion of JSON Value: 1 to type: half", id="type without JSON"),
        pytest.param('{"signature_name": "pair", "inputs": {"a": [1]}}', 400, "Missing named input: b in 'inputs' object.", id="input missing"),
        pytest.param('{"signature_name": "pair", "inputs": [1]}', 400, "inputs is a plain value/list, but expecting an object", id="no object of inputs"),
        pytest.param('{"signature_name": "pair", "instances": [1]}', 400, "instances is a plain list, but expecting list of objects", id="no objects of inputs"),
        pytest.param('{"signature_name": "pair", "instances": [{"a": 1}]}', 400, "keys must be equal to: a,b", id="row without an input"),
        pytest.param('{"signature_name": "scalar", "instances": [1, [2]]}', 400, "", id="list for a scalar"),
    ],
)  # fmt: skip
def test_rest_refuses_a_body(served: Any, body: str, status: int, message: str) -> None:
    seen_status, answer = served.rest(PREDICT, body.encode())
    assert seen_status == status
    assert message in answer["error"]


def test_a_long_value_is_shown_in_part(served: Any) -> None:
    status, answer = served.rest(PREDICT, {"instances": 1, "more": list(range(10_000))})
    assert (status, len(answer["error"]) < 400) == (400, True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([2**63, 2**64, 10**400]),
    lambda value: (
        st.lists(value, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "b64", "a", "b", "text"]), value, max_size=2)
    ),
    max_leaves=6,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(["", "pair", "text", "scalar", "kinds", "half"]) | st.text(),
        "instances": JSON,
        "inputs": JSON,
    },
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=40))
def test_no_body_is_an_error_of_the_servers(served: Any, body: bytes) -> None:
    status, _, content = served.http("POST", PREDICT, body)
    assert status in (200, 400, 404, 501), content
    assert status == 200 or json.loads(content)["error"]
