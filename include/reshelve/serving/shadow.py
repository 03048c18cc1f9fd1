"""Before any customer: recorded requests go to the stable version and to the new one, in turn, on every server."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reshelve.errors import ConfigurationError
from reshelve.evaluation.bootstrap import Interval, bootstrap
from reshelve.rankers import Kind, Ranker
from reshelve.serving.client import Answer, RankingClient, VersionFailedError, finite
from reshelve.serving.judge import Finding, Verdict
from reshelve.serving.recorded import Recorded

_TOP = 10
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
) -> Finding:
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
    alike = agreement(ranker.kind, old, new)
    if alike is not None:
        compared.agreement.append(alike)


def agreement(kind: Kind, old: Answer, new: Answer) -> float | None:
    """The mean share of the first ten items in common; pair: Spearman's correlation. None where nothing compares.

    0 where the new version has lost an order that the old one had, all its scores being equal.
    """
    if kind.over_catalogue:
        if "item" not in old.outputs or "item" not in new.outputs:
            return None
        rows = zip(old.outputs["item"], new.outputs["item"], strict=False)
        shared = [len(set(a[:_TOP]) & set(b[:_TOP])) / len(a[:_TOP]) for a, b in rows if len(a)]
        return float(np.mean(shared)) if shared else None
    a, b = (np.asarray(x.outputs["score"]).ravel() for x in (old, new) if "score" in x.outputs)
    if a.size != b.size or a.size < 2:
        return None
    if not a.std():
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1]) if b.std() else 0.0


def _ranks(values: Any) -> Any:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def judge_shadow(compared: Compared, ranker: Ranker) -> Finding:
    """Roll back where an answer is missing or the answers agree too little or come surely too late."""
    rules = ranker.release
    evidence: dict[str, Any] = {"requests": compared.requests, "refused": len(compared.refused)}
    if compared.refused:
        said = f"{len(compared.refused)} of {compared.requests} requests that the stable version answers fail"
        return Finding(Verdict.ROLL_BACK, f"{said}: {compared.refused[0]}", evidence)
    if compared.agreement:
        mean = float(np.mean(compared.agreement))
        evidence["agreement"] = round(mean, 4)
        if mean < rules.shadow.min_agreement:
            said = f"its answers agree {mean:.3f} with the stable version's"
            return Finding(Verdict.ROLL_BACK, f"{said}, at least {rules.shadow.min_agreement:g}", evidence)
    if not compared.ratios:
        return Finding(Verdict.HOLD, "the stable version answered none of the recorded requests", evidence)
    ratio = _ratio(compared.ratios)
    evidence["latency_ratio"] = [round(x, 3) for x in (ratio.low, ratio.value, ratio.high)]
    said = f"{ratio.low:.2f} to {ratio.high:.2f} times the stable version's latency, {rules.max_latency_ratio:g} is allowed"
    if ratio.low > rules.max_latency_ratio:
        return Finding(Verdict.ROLL_BACK, said, evidence)
    if ratio.high > rules.max_latency_ratio:
        return Finding(Verdict.HOLD, f"inconclusive: {said}", evidence)
    return Finding(Verdict.PROMOTE, f"{compared.requests} requests: {said}", evidence)


def _ratio(logarithms: Sequence[float]) -> Interval:
    """The geometric mean of the ratios, without the slowest and fastest twentieth: one pause is no slowness."""
    cut = np.sort(np.asarray(logarithms))
    edge = len(cut) // 20
    cut = cut[edge : len(cut) - edge]
    found = bootstrap(cut, np.ones(len(cut)), [str(n) for n in range(len(cut))], seed=1)
    return Interval(*(float(np.exp(x)) for x in (found.value, found.low, found.high)))
