"""What a caller and an agent can do with a model server, and what tests need to hold one up."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from reshelve.modelserver.local_server import Addresses
from reshelve.processes import port_is_open

ELSEWHERE = os.environ.get("RESHELVE_MODEL_SERVER", "")
THREADS = int(os.environ.get("RESHELVE_MODEL_SERVER_THREADS", 4 * len(os.sched_getaffinity(0))))
MISSING = grpc.StatusCode.NOT_FOUND

Versions = list[int] | None


@dataclass(frozen=True)
class Listed:
    """One model of a model list."""

    base_path: str | Path
    versions: Versions = None
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = "tensorflow"


class Caller:
    """What a caller and an agent can do with a model server."""

    def __init__(self, addresses: Addresses) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.addresses = addresses
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(addresses.grpc, options=unlimited)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def request(self, model: str, inputs: Mapping[str, Any], **spec: Any) -> Any:
        """A PredictRequest; spec: version, label, signature, outputs."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = spec.get("signature", "")
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        request.output_filter.extend(spec.get("outputs", []))
        for alias, value in inputs.items():
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return request

    def predict(self, model: str, x: float = 1.0, **spec: Any) -> tuple[int, float]:
        """(version, y) of a line model."""
        response = self.prediction.Predict(
            self.request(model, {"x": np.array([x], np.float32)}, **spec), timeout=60
        )
        return response.model_spec.version.value, response.outputs["y"].float_val[0]

    def status(self, model: str, **version: int) -> dict[int, tuple[str, int, str]]:
        """version → (state, error code, error text)."""
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        if "version" in version:
            request.model_spec.version.value = version["version"]
        response = self.models.GetModelStatus(request, timeout=60)
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            one.version: (state_name(one.state), one.status.error_code, one.status.error_message)
            for one in response.model_version_status
        }

    def state(self, model: str, version: int) -> str:
        """The state's name; "" where the server does not know the version."""
        try:
            return self.status(model, version=version)[version][0]
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            return ""

    def wait_for(self, model: str, version: int, state: str, seconds: float = 60) -> None:
        """Until the version is in that state."""
        wait_for(lambda: self.state(model, version) == state, f"{model} {version} {state}", seconds)

    def reload(self, models: Mapping[str, Listed] | list[tuple[str, Listed]], timeout: float = 60) -> Any:
        """Replace the model list."""
        from tensorflow_serving.apis import model_management_pb2

        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.SetInParent()
        for name, model in models.items() if isinstance(models, Mapping) else models:
            listed = request.config.model_config_list.config.add(
                name=name, base_path=str(model.base_path), model_platform=model.platform
            )
            if model.versions is None:
                listed.model_version_policy.all.SetInParent()
            else:
                listed.model_version_policy.specific.versions.extend(model.versions)
            for label, version in model.labels.items():
                listed.version_labels[label] = version
        return self.models.HandleReloadConfigRequest(request, timeout=timeout)

    def rest(self, path: str, body: Any = None) -> tuple[int, Any]:
        """(HTTP status, JSON); `body` is posted, bytes as they are."""
        self._needs_rest()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://{self.addresses.rest}{path}", data=data), timeout=60
            ) as answer:
                content, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            content, status = error.read(), error.code
        return status, json.loads(content) if content.lstrip()[:1] == b"{" else content.decode()

    def http(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        """(HTTP status, content type, body) of any request, its target as it is."""
        self._needs_rest()
        connection = http.client.HTTPConnection(self.addresses.rest, timeout=60)
        try:
            connection.putrequest(method, target)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

    def _needs_rest(self) -> None:
        if ELSEWHERE and not _listens(self.addresses.rest):
            pytest.skip(f"no REST at {self.addresses.rest}: RESHELVE_MODEL_SERVER_REST says where it is")


def spoil_garbage(version: Path) -> None:
    """Make a SavedModel no proto."""
    (version / "saved_model.pb").write_bytes(b"garbage, no proto at all")


class Gate:
    """A pipe that nobody reads: TensorFlow waits in the open of it, so a load or a request lasts until the test says.

    The signature `held` of a `saved_model` writes to the file that its input names.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reader: int | None = None

    def open(self) -> None:
        """Let everybody through, who waits and who comes."""
        if self._reader is None:
            self._reader = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def holds_the_load_of(self, version: Path) -> None:
        """Give the SavedModel in a directory a warm-up request that waits at the gate."""
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.signature_name = "held"
        request.inputs["path"].CopyFrom(tf.make_tensor_proto(str(self.path)))
        extra = version / "assets.extra"
        extra.mkdir()
        with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as records:
            records.write(log.SerializeToString())

    def close(self) -> None:
        if self._reader is not None:
            os.close(self._reader)


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return port_is_open(int(port), host)


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Poll until ready, or fail naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
