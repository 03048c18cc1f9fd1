"""Requests and answers that travel with a version: its warm-up requests, and answers that must come out again."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from reshelve.config.ranker import Ranker
from reshelve.errors import DataError
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.names import is_day
from reshelve.protocol import messages
from reshelve.store.json_documents import json_value
from reshelve.store.layout import requests_of
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import read_file

WARM_UP = "assets.extra/tf_serving_warmup_requests"
_LOGGED_DAYS = 3
KNOWN_ANSWERS = "assets.extra/known_answers.json"


@dataclass(frozen=True)
class Recorded:
    """One request."""

    signature: str
    inputs: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class KnownAnswer:
    """One request and the scores that the packaging host got."""

    request: Recorded
    score: NDArray[Any]


def recorded_requests(store: ObjectStore, manifest: Manifest) -> list[Recorded]:
    """A version's warm-up requests; none where it has none. Raises DataError where they cannot be read."""
    body = read_file(store, manifest, WARM_UP)
    return [] if body is None else list(_requests(body, f"{manifest.ranker} version {manifest.version}"))


def logged_requests(store: ObjectStore, ranker: Ranker, most: int) -> list[Recorded]:
    """What customers asked lately, from the newest part of the request log; none without a log, and none of a kind of whose
    questions the log does not hold all. A damaged part is left out."""
    of_log = kind_of(ranker.kind).requests.of_log
    days = store.folders(requests_of(ranker.name)) if of_log("") is not None else []
    days = [day for day in days if is_day(day.removeprefix("dt="))]
    for day in reversed(days[-_LOGGED_DAYS:]):
        keys = [key for key, _ in store.list(f"{requests_of(ranker.name)}{day}/")]
        found = store.get(max(keys)) if keys else None
        if found is None:
            continue
        try:
            rows = (
                pq.read_table(io.BytesIO(found.body), columns=["signature", "text"])
                .slice(0, most)
                .to_pylist()
            )
        except pa.ArrowException as error:
            logger(ranker=ranker.name).warning("a part of the request log is damaged", problem=str(error))
            continue
        texts = [row["text"] for row in rows if row["signature"] == "serving_default" and row["text"]]
        return [
            Recorded(
                "serving_default", {name: np.array(given, dtype=object) for name, given in asked.items()}
            )
            for one in texts
            if (asked := of_log(one)) is not None
        ]
    return []


def known_answers(store: ObjectStore, manifest: Manifest) -> KnownAnswer | None:
    """A version's known answers, or None: versions from before there were any have none."""
    body = read_file(store, manifest, KNOWN_ANSWERS)
    if body is None:
        return None
    try:
        found = json_value(body)
        inputs = {name: np.array(texts, dtype=object) for name, texts in found["inputs"].items()}
        return KnownAnswer(Recorded(str(found["signature"]), inputs), np.array(found["score"], dtype=float))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{manifest.ranker} version {manifest.version}: {KNOWN_ANSWERS} cannot be read"
        ) from error


def _requests(body: bytes, what: str) -> Iterator[Recorded]:
    for record in _records(body, what):
        log = messages.prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except DecodeError as error:
            raise DataError(f"{what}: a warm-up request cannot be read") from error
        if log.WhichOneof("log_type") == "predict_log":
            request = log.predict_log.request
            inputs = {name: messages.from_tensor(tensor) for name, tensor in request.inputs.items()}
            yield Recorded(request.model_spec.signature_name or "serving_default", inputs)


def _records(body: bytes, what: str) -> Iterator[bytes]:
    """TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4). The manifest's digest vouches for all."""
    place = 0
    while place < len(body):
        if len(body) < place + 12:
            raise DataError(f"{what}: its warm-up file ends within a record")
        (length,) = struct.unpack_from("<Q", body, place)
        place += 12
        if len(body) < place + length + 4:
            raise DataError(f"{what}: its warm-up file ends within a record")
        yield body[place : place + length]
        place += length + 4
