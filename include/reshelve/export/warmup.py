"""Recorded requests that a model server replays at load, so that no customer pays for the first run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

BATCHES = (1, 8, 32)
FILE = Path("assets.extra", "tf_serving_warmup_requests")

Request = dict[str, list[str]]


def write_warmup(version: Path, servable: str, requests: Iterable[tuple[str, Request]]) -> int:
    """Write (signature name, inputs by name) as a TFRecord of PredictionLog; how many there were."""
    path = version / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = servable
            request.model_spec.signature_name = signature
            for name, texts in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto([t.encode() for t in texts], tf.string))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
            count += 1
    return count
