"""Ask a served version the held-out questions, over the model server's own gRPC API.

What is judged is what customers would get: the packaged bytes, loaded by the server, answering strings.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reshelve.client.client import RankingClient
from reshelve.config.kind_names import require_kind
from reshelve.errors import DataError
from reshelve.examples.formats import HoldoutQuery
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.store.manifest import ABOUT

Served = tuple[
    list[str], list[float], bool
]  # items, best first, their scores, whether all of these are numbers
_SECONDS = 60.0
_VERSION = 1  # as the gate's own model server numbers a version's directory


@dataclass(frozen=True)
class RankedAnswers:
    """Each question's items, best first, with their scores; and how many were answered with a score that is no number.

    An item that the version's catalogue does not know has the score NaN. `milliseconds` are those of each request, `rows`
    what they asked for together.
    """

    ranked: list[list[str]]
    scores: list[list[float]]
    broken: int
    milliseconds: Sequence[float] = ()
    rows: int = 0


class ServedModel:
    """One servable of a model server. `known` are the items of its own catalogue: others it must rank last."""

    def __init__(self, client: RankingClient, servable: str, kind: str, known: frozenset[str]) -> None:
        self._client = client
        self._servable = servable
        self._evaluation = kind_of(kind).evaluation
        self._known = known
        self._milliseconds: list[float] = []
        self._rows = 0

    def answer(self, queries: Sequence[HoldoutQuery]) -> RankedAnswers:
        """The ranked items of each query, in order.

        Raises TryAgainError where the server is away, DataError where the version does not keep its signature.
        """
        log = logger(stage="gate", servable=self._servable)
        ranked: list[list[str]] = []
        scores: list[list[float]] = []
        broken = 0
        progress = Progress(log, "answering", "queries", len(queries))
        for items, item_scores, sound in self._evaluation.answers(self, queries):
            ranked.append(items)
            scores.append(item_scores)
            broken += not sound
            progress.add()
        return RankedAnswers(ranked, scores, broken, tuple(self._milliseconds), self._rows)

    @property
    def known(self) -> frozenset[str]:
        """The items of its own catalogue: others it must rank last."""
        return self._known

    def ask(self, inputs: dict[str, list[str]], outputs: list[str], rows: int) -> list[NDArray[Any]]:
        """The `outputs` of one request that asks for `rows`. Raises as `answer`."""
        began = time.perf_counter()
        answer = self._client.predict(self._servable, inputs, version=_VERSION, timeout=_SECONDS)
        self._milliseconds.append(1000 * (time.perf_counter() - began))
        self._rows += rows
        found = [answer.outputs.get(name, np.empty(0)) for name in outputs]
        if any(array.shape[:1] != (rows,) for array in found):
            shapes = {name: array.shape for name, array in answer.outputs.items()}
            raise DataError(
                f"servable {self._servable} does not keep its signature",
                f"expected {', '.join(outputs)} of {rows} rows, got {shapes}",
            )
        return found


def order(candidates: Sequence[str], scores: Sequence[float], known: frozenset[str]) -> list[str]:
    """Best score first; what is not `known` or has no number is last. Ties by item id: a list's order never helps."""
    scored = []
    for item, score in zip(candidates, scores, strict=True):
        sound = item in known and math.isfinite(score)
        scored.append((not sound, -score if sound else 0.0, item))
    return [item for _, _, item in sorted(scored)]


def text(value: bytes | str) -> str:
    """A string out of a tensor."""
    return value.decode() if isinstance(value, bytes) else value


def catalogue_of(version: Path) -> frozenset[str]:
    """The item ids that a version carries in `assets.extra/catalogue.jsonl`. Raises DataError."""
    path = version / "assets.extra" / "catalogue.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            return frozenset(json.loads(line)["item"] for line in lines)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: the version's catalogue cannot be read", str(error)) from error


def answers_as(version: Path) -> str:
    """The kind of ranker that a version answers as. Raises DataError where it does not say, or says one that nobody knows."""
    path = version / ABOUT
    try:
        return require_kind(json.loads(path.read_bytes())["kind"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: the version's description cannot be read", str(error)) from error
