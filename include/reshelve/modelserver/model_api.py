"""What both wires answer: Predict, metadata and status, as the API's own messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from reshelve.modelserver.runtime import meta_graph_pb2
from reshelve.modelserver.servable_manager import VersionStatus
from reshelve.modelserver.servables import DEFAULT_SIGNATURE, PredictOutputs
from reshelve.modelserver.server_core import ServerCore
from reshelve.modelserver.server_metrics import ServerMetrics
from reshelve.modelserver.serving_error import ServingError, invalid, not_found
from reshelve.modelserver.tensors import to_proto
from reshelve.protocol.messages import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2


class ModelApi:
    """The calls of PredictionService and ModelService, free of gRPC and HTTP. All raise ServingError."""

    def __init__(self, core: ServerCore, metrics: ServerMetrics) -> None:
        self.core = core
        self.metrics = metrics

    @contextmanager
    def counted(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count one request and its latency, whatever comes of it."""
        started, status = time.perf_counter(), "OK"
        try:
            yield
        except ServingError as error:
            status = error.code.name
            raise
        except BaseException:
            status = "INTERNAL"
            raise
        finally:
            self.metrics.request(model, status, api, entrypoint, 1e6 * (time.perf_counter() - started))

    def predict(
        self, request: predict_pb2.PredictRequest, timeout_ms: int = 0
    ) -> predict_pb2.PredictResponse:
        """Run a signature of the version that the request names; the graph is stopped after `timeout_ms` (0: never)."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version, answer = self.run(spec, request.inputs, list(request.output_filter), timeout_ms)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = answer.signature_name
        for alias, value in answer.outputs.items():
            response.outputs[alias].CopyFrom(to_proto(value, answer.types[alias]))
        return response

    def run(
        self,
        spec: model_pb2.ModelSpec,
        inputs: Mapping[str, Any],
        output_filter: list[str],
        timeout_ms: int = 0,
    ) -> tuple[int, PredictOutputs]:
        """The version that answered, and its answer as arrays."""
        with self.core.lend(spec) as (version, servable):
            started = time.perf_counter()
            answer = servable.predict(spec.signature_name, inputs, output_filter, timeout_ms)
            self.metrics.runtime(spec.name, 1e6 * (time.perf_counter() - started))
        return version, answer

    def signature(self, spec: model_pb2.ModelSpec, name: str) -> meta_graph_pb2.SignatureDef:
        """A signature of the version named, in the words REST uses where there is none."""
        name = name or DEFAULT_SIGNATURE
        with self.core.lend(spec) as (_, servable):
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            return servable.signatures[name]

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> tuple[get_model_metadata_pb2.GetModelMetadataResponse, get_model_metadata_pb2.SignatureDefMap]:
        """The signatures of a version: as the packed response, and unpacked."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.core.lend(request.model_spec) as (version, servable):
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata["signature_def"].Pack(signatures)
        return response, signatures

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of one version or of all; a label in the request is ignored, as in TensorFlow Serving."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        statuses = self.core.manager.statuses(spec.name)
        if spec.WhichOneof("version_choice") == "version":
            number = spec.version.value
            statuses = [status for status in statuses if status.number == number]
            if not statuses:
                raise not_found(f"Could not find version {number} of model {spec.name}")
        if not statuses:
            raise not_found(f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.extend(_status(status) for status in statuses)
        return response


def _status(status: VersionStatus) -> get_model_status_pb2.ModelVersionStatus:
    message = get_model_status_pb2.ModelVersionStatus(version=status.number, state=int(status.state))
    message.status.error_code = status.error.number if status.error else 0
    message.status.error_message = status.error.message if status.error else ""
    return message
