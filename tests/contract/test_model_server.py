"""TensorFlow Serving's contract, driven from outside: states, codes and messages that agents and clients rely on.

It runs against our local model server, or against any server named by `RESHELVE_MODEL_SERVER` (see conftest.py).
"""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from .calls import refused, spoil_garbage

pytestmark = pytest.mark.slow  # one server start and a few dozen loads

X = np.array([1.0, 2.0], np.float32)
ONE = {"x": X}
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


# --- Predict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "version", "y"),
    [
        pytest.param({}, 2, 4.0, id="newest"),
        pytest.param({"version": 1}, 1, 3.0, id="by version"),
        pytest.param({"label": "stable"}, 1, 3.0, id="by label"),
        pytest.param({"label": "canary", "outputs": ["y"]}, 2, 4.0, id="by label, filtered"),
    ],
)
def test_predict_answers_from_the_version_named(
    served: Any, spec: dict[str, Any], version: int, y: float
) -> None:
    assert served.predict("m", 1.0, **spec) == (version, y)


PREDICT_ERRORS = [
    pytest.param("m", ONE, {"label": "nope"}, INVALID, "Unrecognized servable version label: nope", id="unknown label"),
    pytest.param("zz", ONE, {"label": "nope"}, INVALID, "Unrecognized servable version label: nope", id="model and label"),
    pytest.param("zz", ONE, {}, MISSING, "Servable not found for request: Latest(zz)", id="unknown model"),
    pytest.param("m", ONE, {"version": 9}, MISSING, "Servable not found for request: Specific(m, 9)", id="unknown version"),
    pytest.param("", ONE, {}, INVALID, "ModelSpec has no name specified.", id="no name"),
    pytest.param(
        "m", {"bad": X}, {}, INVALID,
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {bad}, or default input alias set: ",
        id="wrong input name",
    ),
    pytest.param(
        "m", {"x": X, "b": X}, {}, INVALID,
        "input size does not match signature: 2!=1 len({b,x}) != len({x}). Sent extra: {b}. Missing but required: {}.",
        id="extra input",
    ),
    pytest.param(
        "m", {}, {}, INVALID,
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        id="missing input",
    ),
    pytest.param(
        "m", {"x": np.array([1], np.int32)}, {}, INVALID, "Expects arg[0] to be float but int32 is provided",
        id="wrong type",
    ),
    pytest.param(
        "m", {"x": ["one"]}, {}, INVALID, "Expects arg[0] to be float but string is provided", id="string for float"
    ),
    pytest.param(
        "m", ONE, {"signature": "nosig"}, PRECONDITION, 'Serving signature key "nosig" not found.', id="no signature"
    ),
    pytest.param(
        "m", ONE, {"outputs": ["q"]}, INVALID,
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        id="bad output filter",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "inputs", "spec", "code", "message"), PREDICT_ERRORS)
def test_predict_refuses(
    served: Any, model: str, inputs: dict[str, Any], spec: dict[str, Any], code: grpc.StatusCode, message: str
) -> None:
    error = refused(lambda: served.prediction.Predict(served.request(model, inputs, **spec), timeout=60))
    assert (error.code(), error.details()) == (code, message)


def test_a_request_without_spec_is_refused(served: Any) -> None:
    from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

    for call in (
        lambda: served.prediction.Predict(predict_pb2.PredictRequest(), timeout=60),
        lambda: served.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=60),
    ):
        error = refused(call)
        assert (error.code(), error.details()) == (INVALID, "Missing ModelSpec")


def test_the_shape_of_the_signature_is_not_checked(served: Any) -> None:
    response = served.prediction.Predict(served.request("m", {"x": np.ones((2, 3), np.float32)}), timeout=60)
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [2, 3]


def test_a_scalar_goes_in_and_comes_out_as_one(served: Any) -> None:
    response = served.prediction.Predict(
        served.request("m", {"s": np.float32(1.5)}, signature="scalar"), timeout=60
    )
    assert (list(response.outputs["twice"].tensor_shape.dim), list(response.outputs["twice"].float_val)) == (
        [],
        [3.0],
    )


NOT_A_TENSOR = "tensor parsing error: x"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        pytest.param({"dtype": 1, "shape": [-1], "float_val": [1]}, NOT_A_TENSOR, id="negative dimension"),
        pytest.param({"dtype": 1, "shape": [2, -2], "float_val": [1] * 4}, NOT_A_TENSOR, id="two of them"),
        pytest.param({"dtype": 1, "shape": [1] * 255, "float_val": [1]}, NOT_A_TENSOR, id="255 dimensions"),
        pytest.param({"dtype": 1, "shape": [2**62, 4], "float_val": [1]}, NOT_A_TENSOR, id="more than there are"),
        pytest.param({"dtype": 1, "shape": [2], "tensor_content": b"123"}, NOT_A_TENSOR, id="wrong content"),
        pytest.param({"dtype": 0, "shape": [1]}, NOT_A_TENSOR, id="no type"),
        pytest.param({"dtype": 101, "shape": [1], "float_val": [1]}, NOT_A_TENSOR, id="reference"),
        pytest.param({"dtype": 999, "shape": [1], "float_val": [1]}, NOT_A_TENSOR, id="unknown type"),
        pytest.param({"dtype": 21, "shape": [1]}, "Expects arg[0] to be float but variant is provided", id="variant"),
        pytest.param({"dtype": 6, "shape": [1], "int_val": [300]}, "Expects arg[0] to be float but int8 is provided", id="int8"),
    ],
)  # fmt: skip
def test_what_is_no_tensor_for_an_input_is_refused(served: Any, tensor: dict[str, Any], message: str) -> None:
    error = refused(lambda: served.prediction.Predict(with_x(served, **tensor), timeout=60))
    assert (error.code(), error.details()) == (INVALID, message)


@pytest.mark.parametrize(
    ("tensor", "y"),
    [
        pytest.param({"shape": [2], "float_val": [1, 2, 3]}, [4, 7], id="too many"),
        pytest.param({"shape": [3], "float_val": [1, 2]}, [4, 7, 7], id="too few"),
        pytest.param({"shape": [2]}, [1, 1], id="none"),
        pytest.param({"shape": [0], "float_val": [1]}, [], id="nothing asked"),
    ],
)
def test_the_shape_says_how_many_values_there_are(
    served: Any, tensor: dict[str, Any], y: list[float]
) -> None:
    response = served.prediction.Predict(with_x(served, dtype=1, **tensor), timeout=60)
    assert list(response.outputs["y"].float_val) == y


def with_x(served: Any, shape: list[int], **tensor: Any) -> Any:
    """A request for `m` whose input is the tensor."""
    request = served.request("m", {})
    x = request.inputs["x"]
    x.dtype = tensor.pop("dtype")
    for size in shape:
        x.tensor_shape.dim.add(size=size)
    x.tensor_content = tensor.pop("tensor_content", b"")
    for field, values in tensor.items():
        getattr(x, field).extend(values)
    return request


def test_strings_and_several_outputs(served: Any) -> None:
    import tensorflow as tf

    words = ["tèapot", "日本", ""]
    response = served.prediction.Predict(served.request("m", {"text": words}, signature="text"), timeout=60)
    assert [word.decode() for word in response.outputs["upper"].string_val] == ["TÈAPOT", "日本", ""]
    inputs = {"a": X, "b": np.array([1, 2], np.int64)}
    pair = served.prediction.Predict(served.request("m", inputs, signature="pair"), timeout=60)
    assert tf.make_ndarray(pair.outputs["total"]).tolist() == [2.0, 4.0]
    assert tf.make_ndarray(pair.outputs["parts"]).tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert pair.model_spec.signature_name == "pair"


def test_large_messages_pass(served: Any) -> None:
    response = served.prediction.Predict(
        served.request("m", {"x": np.ones(4_000_000, np.float32)}), timeout=60
    )
    assert len(response.outputs["y"].float_val) == 4_000_000


def test_the_metadata_names_the_signatures(served: Any) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2 as metadata

    request = metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "m"
    response = served.prediction.GetModelMetadata(request, timeout=60)
    signatures = metadata.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "pair", "text"} <= set(signatures.signature_def)
    assert response.model_spec.version.value == 2


# --- Status and loading ----------------------------------------------------------------------------------------------


def test_status_of_what_is_not_known(served: Any) -> None:
    error = refused(lambda: served.status("zz"))
    assert (error.code(), error.details()) == (MISSING, "Could not find any versions of model zz")
    error = refused(lambda: served.status("m", version=9))
    assert (error.code(), error.details()) == (MISSING, "Could not find version 9 of model m")


def spoil_truncated(version: Path) -> None:
    content = (version / "saved_model.pb").read_bytes()
    (version / "saved_model.pb").write_bytes(content[: len(content) // 2])


def spoil_missing(version: Path) -> None:
    (version / "saved_model.pb").unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        pytest.param(spoil_garbage, 15, "Can't parse {}/saved_model.pb as binary proto", id="garbage"),
        pytest.param(spoil_truncated, 11, "Read less bytes than requested", id="truncated"),
        pytest.param(
            spoil_missing, 5,
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            "`saved_model.pb`)",
            id="no saved_model.pb",
        ),
    ],
)  # fmt: skip
def test_a_corrupt_version_ends_and_the_old_one_serves_on(
    caller: Any, listed: Any, saved_model: Any, tmp_path: Path, spoil: Any, code: int, message: str
) -> None:
    model = f"corrupt-{spoil.__name__}"
    saved_model(tmp_path / "1")
    caller.reload({model: listed(tmp_path, versions=[1])})
    incoming = saved_model(tmp_path / "incoming")
    spoil(incoming)
    incoming.rename(tmp_path / "2")
    caller.reload({model: listed(tmp_path, versions=[2])})
    caller.wait_for(model, 2, "END")
    state, seen_code, seen = caller.status(model)[2]
    assert (state, seen_code) == ("END", code)
    assert seen.startswith(message.format(tmp_path / "2"))
    assert caller.predict(model)[0] == 1, "the old version goes only when a new one is AVAILABLE"


def test_a_failed_version_is_tried_again_only_after_it_was_dropped(
    caller: Any, listed: Any, saved_model: Any, tmp_path: Path
) -> None:
    base, beside = tmp_path / "again", tmp_path / "beside"
    good, both = listed(base, versions=[1]), listed(base, versions=[1, 2])
    base.mkdir()
    beside.mkdir()
    saved_model(base / "1")
    saved_model(beside / "1")
    (base / "2").mkdir()
    others = itertools.count(2)

    def when_directories_were_read() -> None:
        """A new version of another model is there: the server has looked at all of them since."""
        for _ in range(2):  # the first may have been under way
            other = next(others)
            saved_model(beside / str(other))
            caller.wait_for("beside", other, "AVAILABLE")

    caller.reload({"again": good, "beside": listed(beside)})
    caller.reload({"again": both, "beside": listed(beside)})
    caller.wait_for("again", 2, "END")
    shutil.copytree(base / "1", base / "2", dirs_exist_ok=True)
    when_directories_were_read()
    assert caller.state("again", 2) == "END"
    caller.reload({"again": good, "beside": listed(beside)})
    when_directories_were_read()
    caller.reload({"again": both, "beside": listed(beside)})
    caller.wait_for("again", 2, "AVAILABLE")


def test_a_half_copied_version_loads_and_fails_at_predict(
    caller: Any, listed: Any, saved_model: Any, tmp_path: Path
) -> None:
    incoming = saved_model(tmp_path / "incoming")
    shutil.rmtree(incoming / "variables")
    incoming.rename(tmp_path / "1")
    caller.reload({"half": listed(tmp_path)})
    assert caller.state("half", 1) == "AVAILABLE"
    error = refused(lambda: caller.predict("half"))
    assert error.code() is PRECONDITION
    assert "Could not find variable" in error.details()


def test_only_integer_names_are_versions_and_a_removed_directory_unloads(
    caller: Any, listed: Any, saved_model: Any, tmp_path: Path
) -> None:
    saved_model(tmp_path / "1")
    saved_model(tmp_path / "not-a-version")
    caller.reload({"names": listed(tmp_path)})
    saved_model(tmp_path / "3", 3.0)
    caller.wait_for("names", 3, "AVAILABLE")
    assert set(caller.status("names")) == {1, 3}
    shutil.rmtree(tmp_path / "3")
    caller.wait_for("names", 3, "END")
    assert caller.predict("names")[0] == 1


@pytest.mark.parametrize(
    ("dtype", "state"), [(np.float32, "AVAILABLE"), (np.int32, "END")], ids=["good", "failing"]
)
def test_a_failing_warm_up_record_keeps_a_version_from_serving(
    caller: Any, listed: Any, saved_model: Any, tmp_path: Path, dtype: Any, state: str
) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    model = f"warm-{state}"
    saved_model(tmp_path / "1")
    caller.reload({model: listed(tmp_path)})
    incoming = saved_model(tmp_path / "incoming")
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(caller.request(model, {"x": np.array([1], dtype)}))
    (incoming / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(incoming / "assets.extra" / "tf_serving_warmup_requests")) as records:
        records.write(log.SerializeToString())
    incoming.rename(tmp_path / "2")
    caller.wait_for(model, 2, state)
    assert (caller.status(model)[2][1] != 0) == (state == "END")


def test_rollover_under_constant_load_gives_no_error(
    caller: Any, listed: Any, saved_model: Any, tmp_path: Path
) -> None:
    saved_model(tmp_path / "1", 2.0)
    caller.reload({"flip": listed(tmp_path, versions=[1])})
    caller.reload({"flip": listed(tmp_path, versions=[1], labels={"stable": 1})})
    stop, errors, answers = threading.Event(), [], []

    def load(spec: dict[str, Any]) -> None:
        while not stop.is_set():
            try:
                answers.append(caller.predict("flip", **spec))
            except grpc.RpcError as error:
                errors.append((error.code(), error.details()))

    threads = [
        threading.Thread(target=load, args=(spec,)) for spec in ({}, {"label": "stable"}, {"label": "stable"})
    ]
    for thread in threads:
        thread.start()
    for new in range(2, 6):
        old = new - 1
        saved_model(tmp_path / str(new), 3.0 if new % 2 else 2.0)
        caller.reload({"flip": listed(tmp_path, versions=[old, new], labels={"stable": old})})
        caller.wait_for("flip", new, "AVAILABLE")
        caller.reload({"flip": listed(tmp_path, versions=[old, new], labels={"stable": new})})
        caller.reload({"flip": listed(tmp_path, versions=[new], labels={"stable": new})})
        caller.wait_for("flip", old, "END")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {version for version, _ in answers} == {1, 2, 3, 4, 5}


# --- ReloadConfig ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "message"),
    [
        pytest.param(
            [("m", "/nowhere"), ("m", "/nowhere")], "Illegal to list model m multiple times in config list",
            id="duplicate",
        ),
        pytest.param(
            [("m", "rel/m")], "Expected model m to have an absolute path or URI; got base_path()=rel/m", id="relative"
        ),
    ],
)  # fmt: skip
def test_reload_refuses_a_wrong_list(
    served: Any, listed: Any, models: list[tuple[str, str]], message: str
) -> None:
    error = refused(lambda: served.reload([(name, listed(path)) for name, path in models]))
    assert (error.code(), error.details()) == (INVALID, message)
    assert served.predict("m", label="stable")[0] == 1, "a refused list changes nothing"


def test_an_empty_reload_is_refused(served: Any) -> None:
    from tensorflow_serving.apis import model_management_pb2

    empty = model_management_pb2.ReloadConfigRequest()
    error = refused(lambda: served.models.HandleReloadConfigRequest(empty, timeout=60))
    assert (error.code(), error.details()) == (
        INVALID,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported",
    )


def test_a_label_moves_only_to_an_available_version(served: Any, listed: Any, two_versions: Path) -> None:
    error = refused(lambda: served.reload({"m": listed(two_versions, labels={"stable": 9, "canary": 2})}))
    assert (error.code(), error.details()) == (
        PRECONDITION,
        "Request to assign label to version 9 of model m, which is not currently available for inference",
    )
    assert served.predict("m", label="stable")[0] == 1
    served.reload({"m": listed(two_versions, labels={"stable": 2, "canary": 2})})
    assert served.predict("m", label="stable")[0] == 2


def test_a_version_may_be_dropped_under_its_label(served: Any, listed: Any, two_versions: Path) -> None:
    dropped = {"m": listed(two_versions, versions=[2], labels={"stable": 1, "canary": 2})}
    served.reload(dropped)
    served.wait_for("m", 1, "END")
    error = refused(lambda: served.predict("m", label="stable"))
    assert (error.code(), error.details()) == (MISSING, "Servable not found for request: Specific(m, 1)")
    assert refused(lambda: served.reload(dropped)).code() is PRECONDITION


def test_an_unsupported_platform_is_refused_and_wipes_the_labels(
    served: Any, listed: Any, two_versions: Path
) -> None:
    models = {"m": listed(two_versions), "alien": listed("/nowhere", platform="onnx")}
    error = refused(lambda: served.reload(models))
    assert error.code() is INVALID
    assert "onnx" in error.details()
    assert refused(lambda: served.predict("m", label="stable")).code() is INVALID
    assert served.predict("m")[0] == 2


def test_specific_versions_that_do_not_exist(served: Any, listed: Any, two_versions: Path) -> None:
    served.reload({"m": listed(two_versions, versions=[2, 8])})
    served.wait_for("m", 1, "END")
    assert served.predict("m")[0] == 2
    served.reload({"m": listed(two_versions, versions=[8])})
    served.wait_for("m", 2, "END")
    assert refused(lambda: served.predict("m")).details() == "Servable not found for request: Latest(m)"


def test_a_reload_replaces_the_whole_list(served: Any, listed: Any, saved_model: Any, tmp_path: Path) -> None:
    saved_model(tmp_path / "7")
    served.reload({"other": listed(tmp_path)})
    assert served.predict("other")[0] == 7
    served.wait_for("m", 2, "END")
    assert served.state("m", 1) == "END", "what ended stays listed"


def test_a_new_corrupt_model_fails_the_reload(
    served: Any, listed: Any, two_versions: Path, tmp_path: Path
) -> None:
    (tmp_path / "1").mkdir()
    error = refused(lambda: served.reload({"m": listed(two_versions), "bad": listed(tmp_path)}))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details().startswith(
        "1 model(s) did not become available: {{{name: bad version: 1} due to error: "
    )
    assert error.details().endswith("}, }")
    assert served.predict("m")[0] == 2


def test_a_reload_answers_before_a_known_models_new_version_is_loaded(
    served: Any, listed: Any, two_versions: Path
) -> None:
    served.reload({"m": listed(two_versions, versions=[2])})
    served.wait_for("m", 1, "END")
    served.reload({"m": listed(two_versions, versions=[1])})
    served.wait_for("m", 1, "AVAILABLE")
    served.wait_for("m", 2, "END")


def test_a_missing_base_path_blocks_reloads_until_it_is_there(
    served: Any, listed: Any, saved_model: Any, two_versions: Path, tmp_path: Path
) -> None:
    models = {"m": listed(two_versions), "late": listed(tmp_path / "late")}
    first = refused(lambda: served.reload(models, timeout=1))
    second = refused(lambda: served.reload({"m": listed(two_versions)}, timeout=1))
    assert {first.code(), second.code()} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert served.predict("m")[0] == 2
    (tmp_path / "late").mkdir()
    saved_model(tmp_path / "late" / "1")
    served.wait_for("late", 1, "END")  # the second reload ran after the first, though its caller had gone
    assert served.predict("m")[0] == 2
