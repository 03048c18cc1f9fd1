"""A real request to one version on one server, before any customer asks it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from reshelve.errors import ConfigurationError
from reshelve.rankers import Kind, Ranker
from reshelve.serving.catalogue import Item
from reshelve.serving.client import Answer, RankingClient, finite

_HISTORY = 3
_CANDIDATES = 8


@dataclass(frozen=True)
class Probe:
    """What one server answered. `problem` is None where the answer is good."""

    server: str
    milliseconds: float
    problem: str | None


def probe(ranker: Ranker, version: int, server: str, items: list[Item], timeout: float = 30) -> Probe:
    """Ask for what the version must know: items of its own catalogue.

    Raises TryAgainError where the server is away or too slow; that says nothing of the version.
    """
    inputs = probe_inputs(ranker.kind, items)
    started = time.monotonic()
    with RankingClient(server) as client:
        try:
            answer = client.predict(ranker.name, inputs, version=version, timeout=timeout)
        except ConfigurationError as error:
            return Probe(server, _milliseconds(started), f"{error.headline}: {error.detail}")
    return Probe(server, _milliseconds(started), _problem(ranker.kind, answer, inputs, version))


def probe_inputs(kind: Kind, items: list[Item]) -> dict[str, list[str]]:
    """Signature inputs from the most wanted items of the catalogue."""
    wanted = sorted(items, key=lambda item: -item.events)
    if kind is Kind.SEARCH:
        return {"query": [wanted[0].title]}
    if kind is Kind.NEXT_ITEM:
        return {"history": [" ; ".join(item.title for item in wanted[:_HISTORY])]}
    return {"query": [wanted[0].title], "item": [item.id for item in wanted[:_CANDIDATES]]}


def _problem(kind: Kind, answer: Answer, inputs: dict[str, list[str]], version: int) -> str | None:
    if answer.version != version:
        return f"version {answer.version} answered instead of {version}"
    scores = answer.outputs.get("score")
    if scores is None:
        return f"no output named score, only {', '.join(sorted(answer.outputs)) or 'none'}"
    if not finite(scores):
        return "its scores are empty or not finite"
    if kind is Kind.PAIR and scores.size != len(inputs["item"]):
        return f"{scores.size} scores for {len(inputs['item'])} items"
    if kind.over_catalogue and answer.outputs["item"].shape != scores.shape:
        return f"items {answer.outputs['item'].shape} and scores {scores.shape} do not fit each other"
    return None


def _milliseconds(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
