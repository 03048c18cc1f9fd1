"""Before any customer: recorded requests go to the stable version and to the new one, in turn, on every server."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reshelve.client.client import Answer, RankingClient, VersionFailedError, finite
from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError
from reshelve.kind_registry import kind_of
from reshelve.rollout.canary_analysis import StepAnalysis, StepOutcome
from reshelve.rollout.recorded import Recorded
from reshelve.statistics.bootstrap import bootstrap_of_independent
from reshelve.statistics.interval import Interval

_TIMEOUT = 30.0


@dataclass
class Compared:
    """What both versions answered."""

    requests: int = 0
    refused: list[str] = field(default_factory=list)  # the stable version answered, the new one did not
    agreement: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # ln(new / stable) of the milliseconds of one request


def shadow(
    ranker: Ranker, stable: int, version: int, servers: Sequence[str], requests: Sequence[Recorded]
) -> StepAnalysis:
    """Replay `release.shadow.requests` requests, the recorded ones over and over, and judge.

    Raises TryAgainError where a server stays busy, away or too slow, DataError never: a request that the stable version
    refuses as well says nothing. A latency is that of the try that was answered, not of the waiting for a free thread.
    """
    compared = Compared()
    for server in servers:
        with RankingClient(server) as client:
            for number, request in enumerate(
                itertools.islice(itertools.cycle(requests), ranker.release.shadow.requests)
            ):
                _replay(client, ranker, stable, version, request, compared, new_first=bool(number % 2))
    return judge_shadow(compared, ranker)


def _replay(
    client: RankingClient,
    ranker: Ranker,
    stable: int,
    version: int,
    request: Recorded,
    compared: Compared,
    *,
    new_first: bool,
) -> None:
    """Who is asked first changes: the second finds the machine warm."""
    found: dict[int, Answer | str] = {}
    for asked in (version, stable) if new_first else (stable, version):
        try:
            found[asked] = client.predict(
                ranker.name, request.inputs, version=asked, signature=request.signature, timeout=_TIMEOUT,
                absence=_TIMEOUT,
            )  # fmt: skip
        except (ConfigurationError, VersionFailedError) as error:
            found[asked] = f"{error.headline}: {error.detail}"
    old, new = found[stable], found[version]
    compared.requests += 1
    if isinstance(old, str):
        return
    if isinstance(new, str):
        compared.refused.append(new)
        return
    score = new.outputs.get("score", new.outputs.get("logits"))
    if score is None or not finite(score):
        compared.refused.append("its scores are missing, empty or not finite")
        return
    compared.ratios.append(float(np.log(new.seconds / old.seconds)))
    alike = kind_of(ranker.kind).requests.agreement(old, new)
    if alike is not None:
        compared.agreement.append(alike)


def judge_shadow(compared: Compared, ranker: Ranker) -> StepAnalysis:
    """Roll back where an answer is missing or the answers agree too little or come surely too late."""
    rules = ranker.release
    evidence: dict[str, Any] = {"requests": compared.requests, "refused": len(compared.refused)}
    if compared.refused:
        said = f"{len(compared.refused)} of {compared.requests} requests that the stable version answers fail"
        return StepAnalysis(StepOutcome.ROLL_BACK, f"{said}: {compared.refused[0]}", evidence)
    if compared.agreement:
        mean = float(np.mean(compared.agreement))
        evidence["agreement"] = round(mean, 4)
        if mean < rules.shadow.min_agreement:
            said = f"its answers agree {mean:.3f} with the stable version's"
            return StepAnalysis(
                StepOutcome.ROLL_BACK, f"{said}, at least {rules.shadow.min_agreement:g}", evidence
            )
    if not compared.ratios:
        return StepAnalysis(
            StepOutcome.HOLD, "the stable version answered none of the recorded requests", evidence
        )
    ratio = _ratio(compared.ratios)
    evidence["latency_ratio"] = [round(x, 3) for x in (ratio.low, ratio.value, ratio.high)]
    said = f"{ratio.low:.2f} to {ratio.high:.2f} times the stable version's latency, {rules.max_latency_ratio:g} is allowed"
    if ratio.low > rules.max_latency_ratio:
        return StepAnalysis(StepOutcome.ROLL_BACK, said, evidence)
    if ratio.high > rules.max_latency_ratio:
        return StepAnalysis(StepOutcome.HOLD, f"inconclusive: {said}", evidence)
    return StepAnalysis(StepOutcome.PROMOTE, f"{compared.requests} requests: {said}", evidence)


def _ratio(logarithms: Sequence[float]) -> Interval:
    """The geometric mean of the ratios, without the slowest and fastest twentieth: one pause is no slowness."""
    cut = np.sort(np.asarray(logarithms))
    edge = len(cut) // 20
    cut = cut[edge : len(cut) - edge]
    return Interval(*(float(np.exp(end)) for end in bootstrap_of_independent(cut, seed=1)))
