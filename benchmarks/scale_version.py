"""What a packaged version costs to load and to ask: a session as a model server has it, strings in, `serving_default` out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from scale_measure import cpu_seconds, forget_peak, status_mb, transient_mb

MANY = 32
Answers = dict[str, np.ndarray]


class Version:
    """A SavedModel whose `serving_default` reads one input, `name`."""

    def __init__(self, directory: Path, threads: int) -> None:
        options = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
        self.session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        with self.session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(directory))
        form = meta.signature_def["serving_default"]
        (self.input,) = (info.name for info in form.inputs.values())
        self.outputs = {name: info.name for name, info in form.outputs.items()}

    def __call__(self, texts: Sequence[str]) -> Answers:
        """Every output [B, K]."""
        return dict(self.session.run(self.outputs, {self.input: list(texts)}))


def measure(
    directory: Path, texts: Sequence[str], threads: int, rounds: int
) -> tuple[dict[str, float], list[list[str]]]:
    """Load, then ask: one text at a time, `rounds` of them, and `MANY` at once. Figures, and the item ids answered to each text."""
    forget_peak()
    resident, cpu, begun = status_mb("VmRSS"), cpu_seconds(), time.perf_counter()
    version = Version(directory, threads)
    load = {
        "load_cpu_s": cpu_seconds() - cpu,
        "load_s": time.perf_counter() - begun,
        "load_peak_mb": status_mb("VmHWM") - resident,
    }
    first = [_ask(version, [text]) for text in _repeated(texts, 10)]
    held = status_mb("VmRSS") - resident
    ones = [_ask(version, [text]) for text in _repeated(texts, rounds)]
    # The first of so many: later ones find what the allocator kept of it.
    many_mb = transient_mb(lambda: version(_repeated(texts, MANY)))
    many = [_ask(version, _repeated(texts[n:] + texts[:n], MANY)) for n in range(max(3, rounds // 20))]
    walls = np.array([wall for wall, _ in ones])
    figures = load | {
        "resident_mb": held,
        "first_ms": first[0][0], "first_cpu_ms": first[0][1],
        "tenth_ms": first[9][0], "tenth_cpu_ms": first[9][1],
        "one_p50_ms": float(np.median(walls)), "one_p99_ms": float(np.quantile(walls, 0.99)),
        "one_cpu_ms": float(np.mean([used for _, used in ones])),
        "many_p50_ms": float(np.median([wall for wall, _ in many])),
        "many_cpu_ms": float(np.mean([used for _, used in many])),
        "one_mb": max(transient_mb(lambda text=text: version([text])) for text in texts[:5]),
        "many_mb": many_mb,
    }  # fmt: skip
    answers = [[item.decode() for item in version([text])["item"][0]] for text in texts]
    return figures, answers


def _ask(version: Version, texts: Sequence[str]) -> tuple[float, float]:
    """Milliseconds, and milliseconds of CPU."""
    cpu, begun = cpu_seconds(), time.perf_counter()
    version(texts)
    return (time.perf_counter() - begun) * 1000, (cpu_seconds() - cpu) * 1000


def _repeated(texts: Sequence[str], count: int) -> list[str]:
    return [texts[number % len(texts)] for number in range(count)]
