"""What a person watches while a job trains: curve.json, TensorBoard's event file, and the progress file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from reshelve.files import write_whole

# A fixed name: a resumed job goes on in the same file, and the run's files are the same on every attempt.
_EVENTS = "events.out.tfevents.0.reshelve"


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, json.dumps(value))


class Curves:
    """The curves of one job; written by rank 0 alone.

    The event file is written record by record: TensorBoard's own writer would import all of TensorFlow for it.
    """

    def __init__(self, directory: Path, points: list[dict[str, Any]]) -> None:
        self.points = points  # those of earlier attempts are written again
        self._directory = directory
        home = directory / "tensorboard"
        home.mkdir(parents=True, exist_ok=True)
        self._file = (home / _EVENTS).open("wb")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for point in points:
            self._record(point)

    def add(self, step: int, seconds: float, **values: float) -> None:
        """One point: `loss`, `validation_loss`, … at a step and that many seconds of training."""
        point = {"step": step, "seconds": round(seconds, 2), **{k: round(v, 6) for k, v in values.items()}}
        self.points.append(point)
        self._record(point)
        self._file.flush()

    def _record(self, point: dict[str, Any]) -> None:
        values = [
            Summary.Value(tag=f"train/{name}", simple_value=value)
            for name, value in point.items()
            if name not in ("step", "seconds")
        ]
        event = Event(wall_time=time.time(), step=point["step"], summary=Summary(value=values))
        self._records.write(event.SerializeToString())

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        write_json(self._directory / "curve.json", self.points)
