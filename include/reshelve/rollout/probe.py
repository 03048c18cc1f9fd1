"""A real request to one version on one server, before any customer asks it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from reshelve.client.client import Answer, RankingClient, VersionFailedError, finite
from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError
from reshelve.kind_registry import kind_of
from reshelve.protocol.version_items import Item
from reshelve.rollout.recorded import KnownAnswer, Recorded

_RELATIVE, _ABSOLUTE = 0.05, 1e-3


@dataclass(frozen=True)
class Probe:
    """What one server answered. `problem` is None where the answer is good."""

    server: str
    milliseconds: float
    problem: str | None


@dataclass(frozen=True)
class ProbeQuestions:
    """What a version has to answer: about its own catalogue, its warm-up requests, and what is known to come out."""

    items: list[Item]
    warm_up: list[Recorded] = field(default_factory=list)
    known: KnownAnswer | None = None


def probe(ranker: Ranker, version: int, server: str, asked: ProbeQuestions, timeout: float = 30) -> Probe:
    """Ask all of it, each request for up to `timeout` seconds: a server may be busy, or be starting.

    Raises TryAgainError where the server stays busy, away, without the version or too slow; that says nothing of the version.
    """
    inputs = kind_of(ranker.kind).requests.probe(asked.items)
    started, took = time.monotonic(), 0.0
    with RankingClient(server) as client:
        try:
            answer = client.predict(ranker.name, inputs, version=version, timeout=timeout, absence=timeout)
            took = _milliseconds(answer.seconds)
            problem = _problem(ranker.kind, answer, inputs, version)
            for request in asked.warm_up if problem is None else ():
                problem = problem or _not_finite(_ask(client, ranker, version, request, timeout))
            if problem is None and asked.known is not None:
                problem = _other_answer(
                    asked.known, _ask(client, ranker, version, asked.known.request, timeout)
                )
        except (ConfigurationError, VersionFailedError) as error:
            took = took or _milliseconds(time.monotonic() - started)
            return Probe(server, took, f"{error.headline}: {error.detail}")
    return Probe(server, took, problem)


def _ask(client: RankingClient, ranker: Ranker, version: int, request: Recorded, timeout: float) -> Answer:
    return client.predict(
        ranker.name,
        request.inputs,
        version=version,
        signature=request.signature,
        timeout=timeout,
        absence=timeout,
    )


def _not_finite(answer: Answer) -> str | None:
    numbers = [array for array in answer.outputs.values() if array.dtype.kind == "f"]
    if numbers and all(finite(array) for array in numbers):
        return None
    return "a warm-up request is answered with numbers that are missing or not finite"


def _other_answer(known: KnownAnswer, answer: Answer) -> str | None:
    """Hosts differ in the last digits (int8 kernels most): near is equal, as the gate's metrics are equal then."""
    found = answer.outputs.get("score")
    if found is None or found.shape != known.score.shape:
        return "its known answer has another form here"
    if not np.allclose(found, known.score, rtol=_RELATIVE, atol=_ABSOLUTE):
        return f"its known answer differs here by {float(np.abs(found - known.score).max()):.3g}"
    return None


def _problem(kind: str, answer: Answer, inputs: dict[str, list[str]], version: int) -> str | None:
    if answer.version != version:
        return f"version {answer.version} answered instead of {version}"
    scores = answer.outputs.get("score")
    if scores is None:
        return f"no output named score, only {', '.join(sorted(answer.outputs)) or 'none'}"
    if not finite(scores):
        return "its scores are empty or not finite"
    return kind_of(kind).requests.problem(inputs, answer.outputs)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
