"""Replay a version's recorded requests at load, so that its first customer does not pay for the first run."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError
from grpc import StatusCode

from reshelve.modelserver.runtime import DataLossError, prediction_log_pb2, tf_record_iterator
from reshelve.modelserver.servables import Servable
from reshelve.modelserver.serving_error import ServingError, invalid

WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def warm_up(servable: Servable, directory: Path) -> int:
    """Run every record of the version's warm-up file; how many there were. Raises ServingError at the first failure."""
    path = directory / WARM_UP_FILE
    if not path.is_file():
        return 0
    count = 0
    try:
        for record in tf_record_iterator(str(path)):
            _replay(servable, record, path)
            count += 1
            if count > MAX_RECORDS:
                raise invalid(f"Number of warmup records exceeeds the maximum ({MAX_RECORDS}) at {path}")
    except DataLossError as error:
        message = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise ServingError(StatusCode.DATA_LOSS, message) from error
    return count


def _replay(servable: Servable, record: bytes, path: Path) -> None:
    log = prediction_log_pb2.PredictionLog()
    try:
        log.ParseFromString(record)
    except DecodeError as error:
        raise invalid(f"Failed to parse warmup record: {record!r} from {path}") from error
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        raise ServingError(StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    request = log.predict_log.request
    servable.predict(request.model_spec.signature_name, request.inputs, request.output_filter)
