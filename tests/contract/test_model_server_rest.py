"""TensorFlow Serving's REST API, driven from outside: what it takes, what it refuses and how, and its metrics page."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/m:predict"
TEAPOT = base64.b64encode("tèapot".encode()).decode()


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        pytest.param(PREDICT, {"instances": [1, 2.5]}, {"predictions": [4.0, 8.5]}, id="rows"),
        pytest.param(PREDICT, {"inputs": [1, 2.5]}, {"outputs": [4.0, 8.5]}, id="columns"),
        pytest.param(PREDICT, {"inputs": {"x": [1]}}, {"outputs": [4.0]}, id="named columns"),
        pytest.param(PREDICT, {"instances": [{"x": 0.1}]}, {"predictions": [1.3]}, id="named rows"),
        pytest.param(
            "/v1/models/m/versions/1:predict", {"instances": [1]}, {"predictions": [3.0]}, id="version"
        ),
        pytest.param(
            "/v1/models/m/labels/stable:predict", {"instances": [1]}, {"predictions": [3.0]}, id="label"
        ),
        pytest.param(
            PREDICT,
            {"signature_name": "pair", "instances": [{"a": 1, "b": 2}]},
            {"predictions": [{"parts": [1.0, 2.0], "total": 3.0}]},
            id="several outputs by row",
        ),
        pytest.param(
            PREDICT,
            {"signature_name": "pair", "inputs": {"a": [1], "b": [2]}},
            {"outputs": {"parts": [[1.0, 2.0]], "total": [3.0]}},
            id="several outputs by column",
        ),
        pytest.param(
            PREDICT,
            {"signature_name": "text", "instances": ["tèapot", {"b64": TEAPOT}]},
            {"predictions": [{"raw_bytes": {"b64": TEAPOT}, "upper": "TÈAPOT"}] * 2},
            id="strings and b64",
        ),
    ],
)
def test_rest_predicts(served: Any, path: str, body: Any, answer: Any) -> None:
    assert served.rest(path, body) == (200, answer)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        pytest.param("/v1/models/zz:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(zz)", id="model"),
        pytest.param("/v1/models/m/versions/9:predict", {"instances": [1]}, 404, "Servable not found for request: Specific(m, 9)", id="version"),
        pytest.param("/v1/models/m/labels/nope:predict", {"instances": [1]}, 400, "Unrecognized servable version label: nope", id="label"),
        pytest.param("/v1/models/zz", None, 404, "Could not find any versions of model zz", id="status of model"),
        pytest.param("/v1/models/m/versions/9", None, 404, "Could not find version 9 of model m", id="status of version"),
        pytest.param(PREDICT, {"signature_name": "nosig", "instances": [1]}, 400, 'Serving signature name: "nosig" not found in signature def', id="signature"),
        pytest.param(PREDICT, {}, 400, "Missing 'inputs' or 'instances' key", id="neither form"),
        pytest.param(PREDICT, b"", 400, "JSON Parse error: The document is empty", id="no body"),
        pytest.param(PREDICT, {"instances": ["one"]}, 400, 'JSON Value: "one" Type: String is not of expected type: float', id="wrong type"),
        pytest.param(PREDICT, {"instances": [{"bad": 1}]}, 400, "JSON object: does not have named input: bad", id="wrong name"),
        pytest.param("/v1/nothing", None, 400, "Malformed request: GET /v1/nothing", id="no such path"),
    ],
)  # fmt: skip
def test_rest_refuses(served: Any, path: str, body: Any, status: int, message: str) -> None:
    seen_status, answer = served.rest(path, body)
    assert seen_status == status
    assert message in answer["error"]


@pytest.mark.parametrize(
    "path", ["/v1/models/m", "/v1/models/m/labels/stable"], ids=["plain", "label is ignored"]
)
def test_rest_tells_the_states(served: Any, path: str) -> None:
    status, answer = served.rest(path)
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert status == 200
    assert {"version": "2", **available} in answer["model_version_status"]
    assert {"version": "1", **available} in answer["model_version_status"]


def test_rest_tells_the_signatures(served: Any) -> None:
    status, answer = served.rest("/v1/models/m/versions/1/metadata")
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert (status, answer["model_spec"]["version"]) == (200, "1")
    assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
