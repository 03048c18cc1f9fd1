"""From answers to the gate's report: everything is compared, and the verdict's rules are applied. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.errors import DataError
from reshelve.evaluation.comparison import HeldOut, Lists
from reshelve.evaluation.findings import (
    calibration,
    exposure_report,
    fairness_report,
    latency_report,
    pooled_auc_report,
    slice_findings,
)
from reshelve.evaluation.scoring import RankedAnswers
from reshelve.evaluation.slices import Familiarity
from reshelve.evaluation.verdict import Champion, decide
from reshelve.examples.catalogue import Catalogue

CHALLENGER = "challenger"
CHAMPION = "champion"


@dataclass(frozen=True)
class Evidence:
    """What was asked, what was answered, and what the past knew."""

    held: HeldOut
    answers: Mapping[str, RankedAnswers]  # of CHALLENGER; of CHAMPION where it is compared
    baselines: Mapping[str, Lists]
    known: Familiarity
    catalogue: Catalogue
    champion: int | None  # the version that serves, compared or not
    candidates: Mapping[str, Any] | None = (
        None  # what the package stage measured of them, where there are any
    )

    @property
    def ranked(self) -> dict[str, Lists]:
        """The lists of every ranker."""
        return {**{name: answers.ranked for name, answers in self.answers.items()}, **self.baselines}


def judge(ranker: Ranker, evidence: Evidence) -> dict[str, Any]:
    """The gate's report, all but `holdout_partitions`.

    Raises DataError where the gate's metric has no value on any question.
    """
    held, gates, ranked = evidence.held, ranker.gates, evidence.ranked
    metric = str(held.metrics[0])
    values = {name: held.values(lists) for name, lists in ranked.items()}
    baselines = {
        name: found
        for name in evidence.baselines
        if (found := held.compare(name, values[CHALLENGER], values[name])) is not None
    }
    own = held.interval(values[CHALLENGER])
    if own is None or len(baselines) < len(evidence.baselines):
        raise DataError(
            f"{metric} has no value on any held-out question of {ranker.name}",
            "expected lists that hold a relevant item and another one",
        )
    clusters = len(set(held.clusters[held.counted(values[CHALLENGER])].tolist()))
    champion = None
    if evidence.champion is not None:
        compared = (
            held.compare(CHAMPION, values[CHALLENGER], values[CHAMPION]) if CHAMPION in values else None
        )
        champion = Champion(evidence.champion, compared)
    slices = slice_findings(held, values, ranker.kind, evidence.known, gates.slice_queries)
    grades = ranker.examples.grades if ranker.examples.labels == "judgements" else None
    calibrations = {
        name: calibration(held, answers, ranker.kind, grades) for name, answers in evidence.answers.items()
    }
    decision = decide(
        metric=metric,
        baselines=[baselines[name] for name in gates.beats],
        others=[rival for name, rival in baselines.items() if name not in gates.beats],
        champion=champion,
        tolerance=gates.champion_tolerance,
        slices=[found.against_champion for found in slices if found.enough and found.against_champion],
        slice_tolerance=gates.slice_tolerance,
        calibration_error=calibrations[CHALLENGER].error,
        max_calibration_error=gates.max_calibration_error,
        broken=evidence.answers[CHALLENGER].broken,
        clusters=clusters,
        candidates=evidence.candidates,
        least_candidates={str(name): least for name, least in gates.candidates.items()},
    )
    return {
        "verdict": decision.verdict.value,
        "reasons": decision.reasons,
        "metric": metric,
        "challenger": own._asdict(),
        "champion": _shown(champion),
        "baselines": {name: rival.value for name, rival in baselines.items()},
        "differences": {name: rival.difference._asdict() for name, rival in baselines.items()},
        "metrics": {name: held.all_metrics(lists) for name, lists in ranked.items()},
        "undefined": held.undefined(ranked[CHALLENGER]),
        "pooled_auc": pooled_auc_report(held, evidence.answers, ranker.kind),
        "slices": {found.name: found.shown() for found in slices},
        "calibration": {name: found.report for name, found in calibrations.items()},
        "exposure": exposure_report(held, ranked, evidence.known, evidence.catalogue),
        "fairness": (
            fairness_report(
                held, ranked, evidence.known, evidence.catalogue, gates.group, gates.group_queries
            )
            if gates.group
            else None
        ),
        "latency": latency_report(evidence.answers),
        "candidates": evidence.candidates,
        "queries": len(held.queries),
        "counted": int(held.counted(values[CHALLENGER]).sum()),
        "clusters": clusters,
        "question_set": held.digest,
    }


def _shown(champion: Champion | None) -> dict[str, Any] | None:
    if champion is None:
        return None
    compared = champion.comparison
    return {
        "version": champion.version,
        "value": compared.value if compared else None,
        "difference": compared.difference.value if compared else None,
        "difference_low": compared.difference.low if compared else None,
        "difference_high": compared.difference.high if compared else None,
    }
