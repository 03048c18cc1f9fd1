"""Counters and latencies under TensorFlow Serving's names, in Prometheus' text form.

Written by hand because `prometheus_client` appends `_total` to every counter, and the names must be the server's own.
As there, no version is told apart: measure a canary in the caller.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

_REQUESTS = ":tensorflow:serving:request_count"
# These two are TensorFlow's own: the path they name ends in the version.
_LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
_LOAD_TIME = ":tensorflow:cc:saved_model:load_latency"
# Microseconds: 10, 18, 32.4, … (about 20 minutes), the last one infinite.
BUCKETS = [10 * 1.8**power for power in range(33)]


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> list[str]:
        lines, running = [], 0
        for limit, count in zip([*(f"{bucket:g}" for bucket in BUCKETS), "+Inf"], self.counts, strict=True):
            running += count
            lines.append(f'{name}_bucket{{{labels},le="{limit}"}} {running}')
        return [*lines, f"{name}_sum{{{labels}}} {self.total:g}", f"{name}_count{{{labels}}} {running}"]


class ServerMetrics:
    """What the Prometheus page shows. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str], int] = defaultdict(int)
        self._latencies: dict[tuple[str, str, str], _Histogram] = defaultdict(_Histogram)
        self._runtimes: dict[tuple[str, str, str], _Histogram] = defaultdict(_Histogram)
        self._loads: dict[tuple[str, str], int] = defaultdict(int)
        self._load_times: dict[str, int] = defaultdict(int)

    @contextmanager
    def load(self, path: str) -> Iterator[None]:
        """Count one try to load the SavedModel in a directory, and its time."""
        started, status = time.perf_counter(), "fail"
        try:
            yield
            status = "success"
        finally:
            with self._lock:
                self._loads[path, status] += 1
                self._load_times[path] += int(1e6 * (time.perf_counter() - started))

    def request(self, model: str, status: str, api: str, entrypoint: str, microseconds: float) -> None:
        """One finished request; `status` is the code's name. Latency is kept for what succeeded."""
        with self._lock:
            self._requests[model, status] += 1
            if status == "OK":
                self._latencies[model, api, entrypoint].add(microseconds)

    def runtime(self, model: str, microseconds: float) -> None:
        """How long TensorFlow itself ran for one Predict."""
        with self._lock:
            self._runtimes[model, "Predict", "TF1"].add(microseconds)

    def text(self) -> str:
        """Everything, in Prometheus' exposition format."""
        with self._lock:
            lines = [f"# TYPE {_LOADS} counter"]
            for (path, status), count in self._loads.items():
                lines.append(f'{_LOADS}{{model_path="{_escaped(path)}",status="{status}"}} {count}')
            lines.append(f"# TYPE {_LOAD_TIME} counter")
            for path, microseconds in self._load_times.items():
                lines.append(f'{_LOAD_TIME}{{model_path="{_escaped(path)}"}} {microseconds}')
            lines.append(f"# TYPE {_REQUESTS} counter")
            for (model, status), count in self._requests.items():
                lines.append(f'{_REQUESTS}{{model_name="{_escaped(model)}",status="{status}"}} {count}')
            lines += self._histograms(":tensorflow:serving:request_latency", self._latencies, "entrypoint")
            lines += self._histograms(":tensorflow:serving:runtime_latency", self._runtimes, "runtime")
        return "\n".join(lines) + "\n"

    @staticmethod
    def _histograms(name: str, values: dict[tuple[str, str, str], _Histogram], last_label: str) -> list[str]:
        lines = [f"# TYPE {name} histogram"]
        for (model, api, last), histogram in values.items():
            lines += histogram.lines(
                name, f'model_name="{_escaped(model)}",API="{api}",{last_label}="{last}"'
            )
        return lines


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
