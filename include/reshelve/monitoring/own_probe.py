"""Before the watch acts on what clients report, it asks the version itself: a report may be wrong, or forged.

Requests that are known to fit (the probe's own, the recorded ones that travel with a version, and what customers were
answered lately) go to the version and to the one beside it, in turn, at every server whose agent lives.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

import numpy as np

from reshelve.client.client import BusyError, RankingClient, ServerAwayError
from reshelve.config.ranker import Ranker
from reshelve.errors import ReshelveError
from reshelve.kind_registry import kind_of
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import Finding
from reshelve.protocol.traffic import Counts
from reshelve.protocol.version_items import read_catalogue
from reshelve.rollout.probe import ProbeQuestions, probe
from reshelve.rollout.recorded import Recorded, known_answers, logged_requests, recorded_requests
from reshelve.statistics.rates import newcombe, wilson
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import require_manifest

TESTED = ("errors", "latency", "rejections", "canary")
"""The checks whose findings are asked about before anything is done."""
_LEAST, _MOST = 100, 300  # requests of each version: those there are, again until they are enough
_LOGGED = 200
_SECONDS = 30.0
_PATIENCE = 5.0  # seconds for one answer


@dataclass
class ProbeAnswers:
    """What the version answered, and the one beside it. `problem`: what its probe found; empty: it is well."""

    version: Counts = field(default_factory=Counts)
    beside: Counts = field(default_factory=Counts)
    problem: str = ""
    away: str = ""


def doubt(store: ObjectStore, seen: Collected, finding: Finding) -> str:
    """Why a finding is not acted on: the version itself says otherwise, or cannot be asked. Empty: it may be.

    Errors and latencies are doubted where the version's own answers surely contradict them. Rejections are callers'
    errors unless the version is surely worse at what is known to fit. A version that nobody can ask is not taken back:
    its servers are away from here, and another version would be no nearer.
    """
    assert finding.version is not None
    pointer = seen.pointer
    beside = pointer.stable if finding.version == pointer.canary else pointer.previous
    try:
        told = _ask(store, seen.ranker, finding.version, beside, seen.servers)
    except ReshelveError as error:
        return f"the watch could not query it itself: {error.headline}"
    if told.problem:
        return ""
    if not told.version.requests:
        return f"the watch could not query it itself: {told.away or 'no agent lives'}"
    return _contradiction(told, finding, seen.ranker)


def _contradiction(told: ProbeAnswers, finding: Finding, ranker: Ranker) -> str:
    """Every claim of the finding has to be contradicted: one that may be true is enough to act."""
    mine, theirs = told.version, told.beside
    asked = f"of {mine.requests} requests of the watch's own"
    if finding.check == "rejections":
        surely = newcombe(mine.failed, mine.requests, theirs.failed, theirs.requests).low > 0
        return (
            ""
            if surely
            else f"{asked} it answers as many as the other version: the clients' requests are invalid"
        )
    said = []
    for rate in _rates(finding, ranker):
        most = wilson(mine.failed, mine.requests).high
        if most >= rate:
            return ""
        said.append(f"{asked} at most {most:.1%} fail")
    if _is_slow(finding, ranker):
        mine_p95, theirs_p95 = mine.p95, theirs.p95
        ratio = mine_p95.high / theirs_p95.low if mine_p95 and theirs_p95 else float("inf")
        if ratio >= ranker.release.max_latency_ratio:
            return ""
        said.append(f"{asked} the p95 is at most {ratio:.2f} times the other version's")
    return f"{' and '.join(said)}: the reports are wrong" if said else ""


def _rates(finding: Finding, ranker: Ranker) -> list[float]:
    """The shares of requests that a finding says surely fail at least."""
    if finding.check == "errors":
        return [finding.evidence["error_rate"][0]]
    claims = [finding.evidence.get(name, (0.0,))[0] for name in ("error_increase", "rejected_increase")]
    return [least for least in claims if least > ranker.release.canary.max_error_increase]


def _is_slow(finding: Finding, ranker: Ranker) -> bool:
    """Whether a finding says that the version is slow."""
    ratio = finding.evidence.get("latency_ratio", (0.0,))[0]
    return finding.check == "latency" or ratio > ranker.release.max_latency_ratio


def _ask(
    store: ObjectStore, ranker: Ranker, version: int, beside: int | None, servers: tuple[str, ...]
) -> ProbeAnswers:
    told = ProbeAnswers()
    requests = _requests(store, ranker, [v for v in (version, beside) if v is not None])
    deadline = time.monotonic() + _SECONDS
    most = min(_MOST, max(_LEAST, len(requests)))
    for server in servers:
        told.problem = told.problem or _probe(store, ranker, version, server, told)
        with RankingClient(server) as client:
            for request in itertools.islice(itertools.cycle(requests), most):
                if time.monotonic() > deadline:
                    break
                _one(client, ranker, version, request, told.version, told)
                if beside is not None:
                    _one(client, ranker, beside, request, told.beside, told)
    return told


def _probe(store: ObjectStore, ranker: Ranker, version: int, server: str, told: ProbeAnswers) -> str:
    """What the release's own probe finds at one server; empty: the version is well there, or the server is away."""
    manifest = require_manifest(store, ranker.name, version)
    asked = ProbeQuestions(
        read_catalogue(store, ranker.name, version),
        recorded_requests(store, manifest)[:_LEAST],
        known_answers(store, manifest),
    )
    try:
        return probe(ranker, version, server, asked, _PATIENCE).problem or ""
    except ReshelveError as error:
        told.away = error.headline
        return ""


def _requests(store: ObjectStore, ranker: Ranker, versions: list[int]) -> list[Recorded]:
    """What surely fits: nothing of it is a caller's report."""
    found: list[Recorded] = []
    for version in versions:
        found += recorded_requests(store, require_manifest(store, ranker.name, version))
    found = [request for request in found if request.signature == "serving_default"]
    found += logged_requests(store, ranker, _LOGGED)
    return [_first(store, ranker, versions[0]), *found]


def _first(store: ObjectStore, ranker: Ranker, version: int) -> Recorded:
    inputs = kind_of(ranker.kind).requests.probe(read_catalogue(store, ranker.name, version))
    return Recorded(
        "serving_default", {name: np.array(texts, dtype=object) for name, texts in inputs.items()}
    )


def _one(
    client: RankingClient, ranker: Ranker, version: int, request: Recorded, counts: Counts, told: ProbeAnswers
) -> None:
    """Ask once. A server that is away or busy says nothing of a version."""
    started = time.monotonic()
    try:
        client.predict(
            ranker.name, request.inputs, version=version, signature=request.signature, timeout=_PATIENCE
        )
        counts.add((time.monotonic() - started) * 1000)
    except (ServerAwayError, BusyError) as error:
        told.away = error.headline
    except ReshelveError as error:
        counts.add(None, type(error).__name__)
