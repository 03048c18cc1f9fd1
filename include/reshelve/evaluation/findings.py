"""What the gate reports beside its metric: slices, calibration, fairness and exposure, of every ranker it asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reshelve.config.ranker import Group
from reshelve.evaluation import classification, graded
from reshelve.evaluation.calibration import expected_calibration_error, predictions, reliability
from reshelve.evaluation.comparison import HeldOut, Lists
from reshelve.evaluation.exposure import exposures
from reshelve.evaluation.fairness import fairness, tally
from reshelve.evaluation.scoring import RankedAnswers
from reshelve.evaluation.slices import Familiarity, enough, labels, masks
from reshelve.evaluation.verdict import Comparison
from reshelve.examples.catalogue import Catalogue
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.progress import counted
from reshelve.statistics.correlation import spearman
from reshelve.statistics.interval import Interval


@dataclass(frozen=True)
class SliceFinding:
    """One slice: every ranker's mean in it, and challenger minus champion where one was asked."""

    name: str
    questions: int
    clusters: int
    enough: bool  # to be held to the bound
    values: dict[str, float | None]
    against_champion: Comparison | None
    interval: Interval | None  # of the challenger's own mean, where there is no champion to compare with

    def shown(self) -> dict[str, Any]:
        """As the report has it."""
        compared = self.against_champion
        return {
            "queries": self.questions,
            "clusters": self.clusters,
            "enough": self.enough,
            "values": self.values,
            "difference": compared.difference._asdict() if compared else None,
            "interval": self.interval._asdict() if self.interval else None,
        }


@dataclass(frozen=True)
class Calibration:
    """How far one version's scores can be read as probabilities."""

    error: Interval | None
    report: dict[str, Any]


def slice_findings(
    held: HeldOut, values: Mapping[str, np.ndarray], kind: str, known: Familiarity, least: int
) -> list[SliceFinding]:
    """Every slice that has a question. `values` (float64[Q]) by ranker, among them challenger and maybe champion."""
    found = []
    found_masks = masks([labels(query, kind, known) if query.orders else () for query in held.queries])
    for name, mask in counted(found_masks.items(), logger(stage="gate"), "comparing slices", "slices"):
        mask = held.counted(values["challenger"], mask)
        if not mask.any():
            continue  # no question of it has a value
        champion = own = None
        if "champion" in values:
            champion = held.compare(name, values["challenger"], values["champion"], mask)
        else:
            own = held.interval(values["challenger"], mask)
        found.append(
            SliceFinding(
                name=name,
                questions=int(mask.sum()),
                clusters=len(set(held.clusters[mask].tolist())),
                enough=enough(mask, held.clusters, least),
                values={ranker: held.mean(each, mask) for ranker, each in values.items()},
                against_champion=champion,
                interval=own,
            )
        )
    return found


def calibration(
    held: HeldOut, answers: RankedAnswers, kind: str, grades: tuple[float, float] | None
) -> Calibration:
    """One version's calibration error and reliability table, and how the same predictions did.

    Those of yes or no by AUC and log loss; those of judgements (`grades`: the lowest and the highest) by Spearman's
    correlation and, in grades, the root of the mean squared error.
    """
    span = grades[1] - grades[0] if grades else 1.0
    found = predictions(answers, held.queries, kind, span)
    error = expected_calibration_error(found, held.seed)
    numbers = (found.outcome, found.probability, found.weight)
    error_in_grades = graded.rmse(found.probability, found.outcome) if grades else None
    report = {
        "predictions": len(found),
        "error": error._asdict() if error else None,
        "auc": None if grades else classification.auc(*numbers),
        "log_loss": None if grades else classification.log_loss(*numbers),
        "spearman": spearman(found.probability, found.outcome) if grades else None,
        "rmse": span * error_in_grades if error_in_grades is not None else None,
        "reliability": [asdict(row) for row in reliability(found)],
    }
    return Calibration(error, report)


def pooled_auc_report(
    held: HeldOut, answers: Mapping[str, RankedAnswers], kind: str
) -> dict[str, Any] | None:
    """pair: the AUC over the rows of all lists together, of every version that was asked, with its interval; else None.

    Lists without a pair count too, as those of one item: the metric `auc`, a mean over lists, leaves them out.
    """
    if not kind_of(kind).evaluation.whole_lists:
        return None
    found: dict[str, Any] = {}
    for name, each in answers.items():
        rows = []
        for items, scores, query in zip(each.ranked, each.scores, held.queries, strict=True):
            wanted = set(query.relevant)
            rows += [
                # What the version does not know, or has no number for, it ranks last.
                (item in wanted, score if math.isfinite(score) else -math.inf, query.weight, query.cluster)
                for item, score in zip(items, scores, strict=True)
            ]
        interval = None
        if rows:
            outcome, score, weight, cluster = (np.array(column) for column in zip(*rows, strict=True))
            interval = classification.auc_interval(outcome, score, weight, cluster, held.seed)
        found[name] = interval._asdict() if interval else None
    return found


def fairness_report(
    held: HeldOut,
    ranked: Mapping[str, Lists],
    known: Familiarity,
    catalogue: Catalogue,
    group: Group,
    least: int,
) -> dict[str, Any]:
    """Every ranker's selection and error rates by category or by segment, among the first places that the gate looks at.

    Groups with fewer than `least` questions are named, and compared with none.
    """
    depth = held.metrics[0].depth
    category = known.categories if group == "category" else None
    return {
        "group": group,
        "depth": depth,
        "least_queries": least,
        "rankers": {
            name: asdict(fairness(tally(lists, held.queries, catalogue.items, depth, category), least))
            for name, lists in ranked.items()
        },
    }


def exposure_report(
    held: HeldOut, ranked: Mapping[str, Lists], known: Familiarity, catalogue: Catalogue
) -> dict[str, Any]:
    """The shares of new and rare items in what each ranker shows, in what was chosen, and in the catalogue."""
    depth, weights = held.metrics[0].depth, held.weights.tolist()
    chosen = [query.relevant for query in held.queries]
    items = set(catalogue.items).union(*chosen)
    new, rare = known.new(items), known.rare(items)

    def shares(lists: Lists) -> dict[str, float]:
        return asdict(exposures(lists, weights, new=new, rare=rare, catalogue=catalogue.items, k=depth))

    return {
        "depth": depth,
        "shown": {ranker: shares(lists) for ranker, lists in ranked.items()},
        "chosen": shares(chosen),
        "catalogue": {
            "items": len(catalogue),
            "new": len(new.intersection(catalogue.items)) / len(catalogue),
            "rare": len(rare.intersection(catalogue.items)) / len(catalogue),
        },
    }


def latency_report(answers: Mapping[str, RankedAnswers]) -> dict[str, Any]:
    """Milliseconds of the gate's own requests, of each version that it asked; batches are as large as it sent them."""
    return {
        name: {
            "requests": len(each.milliseconds),
            "rows": each.rows,
            **{
                f"p{point}": round(float(np.percentile(each.milliseconds, point)), 2)
                for point in (50, 95, 99)
            },
        }
        for name, each in answers.items()
        if each.milliseconds
    }
