"""Paths and methods of the REST API to the letter, and the metrics page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reshelve.modelserver.local_server import running_model_server

pytestmark = pytest.mark.slow

PREDICT = "/v1/models/m:predict"
JSON_TYPE, HTML_TYPE, PAGE_TYPE = "application/json", "text/html; charset=ISO-8859-1", "text/html"
BODY = b'{"instances": [1]}'
MANY = "9" * 30


def malformed(method: str, target: str) -> dict[str, str]:
    return {"error": f"Malformed request: {method} {target}"}


@pytest.mark.parametrize(
    ("method", "target", "status", "answer"),
    [
        pytest.param("POST", PREDICT + "?x=1", 400, malformed("POST", PREDICT + "?x=1"), id="query"),
        pytest.param("GET", "/v1/models/m?x=1", 404, {"error": "Could not find any versions of model m?x=1"}, id="query of status"),
        pytest.param("POST", PREDICT + "/", 400, malformed("POST", PREDICT + "/"), id="slash behind"),
        pytest.param("GET", "/v1/models/m/", 400, malformed("GET", "/v1/models/m/"), id="slash behind status"),
        pytest.param("POST", "/v1/models/:predict", 400, malformed("POST", "/v1/models/:predict"), id="empty name"),
        pytest.param("GET", "/v1/models", 400, {"error": "Missing model name in request."}, id="no name"),
        pytest.param("GET", "/v1/models/versions/1", 400, {"error": "Missing model name in request."}, id="version without a name"),
        pytest.param("GET", PREDICT, 400, malformed("GET", PREDICT), id="GET of a verb"),
        pytest.param("POST", "/v1/models/m", 400, malformed("POST", "/v1/models/m"), id="POST of a status"),
        pytest.param("POST", "/v1/models/m:PREDICT", 400, malformed("POST", "/v1/models/m:PREDICT"), id="capitals"),
        pytest.param("PUT", PREDICT, 400, malformed("PUT", PREDICT), id="PUT"),
        pytest.param("DELETE", "/v1/models/m", 400, malformed("DELETE", "/v1/models/m"), id="DELETE"),
        pytest.param("PATCH", "/v1/models/m", 400, malformed("PATCH", "/v1/models/m"), id="PATCH"),
        pytest.param("POST", "/v1/models/a%2Fb:predict", 404, {"error": "Servable not found for request: Latest(a/b)"}, id="slash in a name"),
        pytest.param("GET", "/v1/models/a%2Fb", 404, {"error": "Could not find any versions of model a/b"}, id="slash in a status"),
        pytest.param("POST", "/v1/models/%6d:predict", 200, {"predictions": [4.0]}, id="coded name"),
        pytest.param("POST", "/v1/models/m/labels/st%61ble:predict", 200, {"predictions": [3.0]}, id="coded label"),
        pytest.param("POST", "/V1/Models/m/Versions/001:predict", 200, {"predictions": [3.0]}, id="capitals and zeros"),
        pytest.param("POST", "/v1/models/m/versions/0:predict", 404, {"error": "Servable not found for request: Specific(m, 0)"}, id="version 0"),
        pytest.param("POST", "/v1/models/m/versions/-1:predict", 400, malformed("POST", "/v1/models/m/versions/-1:predict"), id="version -1"),
        pytest.param("POST", "/v1/models/m/versions/+1:predict", 400, malformed("POST", "/v1/models/m/versions/+1:predict"), id="version +1"),
        pytest.param("POST", "/v1/models/m/versions/1.0:predict", 400, malformed("POST", "/v1/models/m/versions/1.0:predict"), id="version 1.0"),
        pytest.param("POST", "/v1/models/m/versions/:predict", 400, malformed("POST", "/v1/models/m/versions/:predict"), id="no version"),
    ],
)  # fmt: skip
def test_rest_reads_paths_to_the_letter(
    served: Any, method: str, target: str, status: int, answer: Any
) -> None:
    seen_status, kind, content = served.http(method, target, BODY if method == "POST" else None)
    assert (seen_status, kind, json.loads(content)) == (status, JSON_TYPE, answer)


@pytest.mark.parametrize(
    ("method", "target", "headers", "answer"),
    [
        pytest.param("POST", f"/v1/models/m/versions/{MANY}:predict", {}, (400, JSON_TYPE, b""), id="version too large"),
        pytest.param("GET", f"/v1/models/m/versions/{MANY}", {}, (400, JSON_TYPE, b""), id="status of one"),
        pytest.param("OPTIONS", PREDICT, {}, (400, HTML_TYPE, b""), id="OPTIONS"),
        pytest.param("OPTIONS", PREDICT, {"Origin": "https://shop.example"}, (200, HTML_TYPE, b""), id="preflight"),
        pytest.param("HEAD", "/v1/models/m", {}, (400, JSON_TYPE, b""), id="HEAD"),
    ],
)  # fmt: skip
def test_rest_answers_without_a_word(
    served: Any, method: str, target: str, headers: dict[str, str], answer: tuple[int, str, bytes]
) -> None:
    assert served.http(method, target, BODY if method == "POST" else None, headers) == answer


@pytest.mark.parametrize(
    ("method", "target", "status", "title"),
    [
        pytest.param("GET", "/", 404, "404 Not Found", id="elsewhere"),
        pytest.param("GET", "/v1", 404, "404 Not Found", id="nearly there"),
        pytest.param("POST", "/v2/models/m:predict", 404, "404 Not Found", id="another version"),
        pytest.param("GET", "/v1/models/%zz", 400, "400 Bad Request", id="no code"),
        pytest.param("GET", "/v1/models/{m}", 400, "400 Bad Request", id="braces"),
        pytest.param("TRACE", "/v1/models/m", 501, "501 Not Implemented", id="TRACE"),
    ],
)
def test_what_is_no_request_of_the_api_gets_a_page(
    served: Any, method: str, target: str, status: int, title: str
) -> None:
    seen_status, kind, content = served.http(method, target)
    assert (seen_status, kind) == (status, PAGE_TYPE)
    assert f"<TITLE>{title}</TITLE>".encode() in content


# --- Metrics ---------------------------------------------------------------------------------------------------------

PAGE = "/monitoring/prometheus/metrics"


def samples(served: Any, start: str) -> dict[str, float]:
    """Name with labels → value, of the lines that begin with `start`."""
    _, text = served.rest(PAGE)
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(start)]
    return {name: float(value) for name, _, value in lines}


def test_metrics_count_requests_by_model_and_never_by_version(served: Any) -> None:
    served.predict("m")
    served.rest(PREDICT, {"instances": [1]})
    found = samples(served, ":tensorflow:serving:")
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"}' in found
    latency = ":tensorflow:serving:request_latency"
    assert latency + '_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="10"}' in found
    assert latency + '_count{model_name="m",API="predict",entrypoint="REST"}' in found
    assert not [name for name in found if "version" in name], "TensorFlow's own metrics may have the word"


def test_metrics_count_every_request_of_rest_by_what_came_of_it(served: Any) -> None:
    def counted() -> dict[str, float]:
        return samples(served, ":tensorflow:serving:request_count")

    name = ':tensorflow:serving:request_count{{model_name="{}",status="{}"}}'
    before = counted()
    served.rest("/v1/models/m")
    served.rest(PREDICT, {"instances": ["one"]})
    served.rest("/v1/nothing")
    after = counted()
    more = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    assert more == {
        name.format("m", "OK"): 1,
        name.format("m", "INVALID_ARGUMENT"): 1,
        name.format("", "INVALID_ARGUMENT"): 1,
    }


def test_metrics_count_loads_by_path(served: Any, two_versions: Any) -> None:
    found = samples(served, ":tensorflow:cc:saved_model:load_attempt_count")
    for version in (1, 2):
        name = f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{two_versions / str(version)}",status="success"}}'
        assert found[name] >= 1
    assert f':tensorflow:cc:saved_model:load_latency{{model_path="{two_versions / "1"}"}}' in samples(
        served, ":tensorflow:cc:saved_model:load_latency"
    )


def test_the_metrics_page_takes_no_query(served: Any) -> None:
    status, kind, content = served.http("GET", PAGE + "?x=1")
    assert (status, kind) == (400, "text/plain")
    assert content.decode() == f"Unexpected path: {PAGE}?x=1. Should be {PAGE}"


def test_there_is_no_metrics_page_without_its_config(own_process: None) -> None:
    import urllib.error
    import urllib.request

    with running_model_server({}, options={"monitoring_config_file": ""}) as addresses:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{addresses.rest}{PAGE}", timeout=60)
        assert refused.value.code == 404
        refused.value.close()
