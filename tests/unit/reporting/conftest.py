"""Nights as the stages leave them: of every kind, with and without a champion, ended early or late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from reshelve.config.ranker import Ranker
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.judgement import Evidence, judge
from reshelve.evaluation.metrics import Metric, reported
from reshelve.evaluation.scoring import RankedAnswers
from reshelve.evaluation.slices import Familiarity
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.lineage.run import Run
from reshelve.store.objects import ObjectStore
from reshelve.validation.rules import Severity
from reshelve.validation.verdicts import BrokenRule, PartitionDecision, PartitionVerdict, verdict_key

DAY = date(2011, 8, 30)
ITEMS = ["old", "fresh", "spare"]
OLD_FIRST, FRESH_FIRST = ["old", "fresh", "spare"], ["fresh", "old", "spare"]
CHAMPION = 20110829001


def ranker_of(kind: str, **values: Any) -> Ranker:
    """A ranker of a kind, with tuning and a price."""
    document: dict[str, Any] = {
        "name": "shelf", "title": "A shelf & <more>", "kind": kind, "data": {"source": "shop", "window_days": 5},
        "gates": {"metric": "recall@1", "group": "segment"},
        "tuning": {"price_per_hour": 0.5, "parallel": 2, "space": {
            "training.learning_rate": {"loguniform": [1e-5, 1e-3]}, "training.batch_size": {"choice": [32, 64]},
        }},
    }  # fmt: skip
    ranker = Ranker.model_validate(document)
    return ranker.with_values(values) if values else ranker


def judged(ranker: Ranker, challenger: list[str], champion: list[str] | None) -> dict[str, Any]:
    """The gate's own report: 30 customers want the old item, 40 the fresh one."""
    asked = [
        HoldoutQuery(str(n), "known" if n < 30 else "strange", ["old" if n < 30 else "fresh"], 1.0, str(n),
                     candidates=ITEMS if ranker.kind == "pair" else [], segment="here" if n % 2 else "there")
        for n in range(70)
    ]  # fmt: skip

    def answers(first: list[str]) -> RankedAnswers:
        return RankedAnswers([first] * 70, [[0.5, 0.3, 0.2]] * 70, 0)

    evidence = Evidence(
        held=HeldOut(asked, reported(Metric("recall", 1), whole_lists=True), seed=1),
        answers={"challenger": answers(challenger)} | ({"champion": answers(champion)} if champion else {}),
        baselines={name: [["spare", "old", "fresh"]] * 70 for name in ("popularity", "bm25", "cooccurrence")},
        known=Familiarity(queries={"known": 0.0}, items={"old": 0.0, "spare": 0.9}, settled={"old", "spare"}),
        catalogue=Catalogue(ITEMS, ITEMS, [1] * 3, [1] * 3),
        champion=CHAMPION if champion else None,
    )
    return {**judge(ranker, evidence), "holdout_partitions": [str(DAY)]}


def trial(number: int, loss: float | None, **more: Any) -> dict[str, Any]:
    """A trial as the tune stage's result has it."""
    values = {"training.learning_rate": 10.0 ** -(number + 3), "training.batch_size": (32, 64)[number % 2]}
    entry = {
        "trial": number, "rung": 0, "share": 0.1, "loss": loss, "validation_loss": loss, "latency_ms": None,
        "values": values, "status": "done" if loss is not None else "failed", "seconds": 20.0,
    }  # fmt: skip
    return {**entry, **more}


@pytest.fixture
def make_night(store: ObjectStore, tmp_path) -> Callable[..., Run]:
    """`make_night(kind, challenger=…, champion=…, without=[stages])`: a run whose stages are done."""

    def make(
        kind: str = "next_item",
        *,
        challenger: list[str] = FRESH_FIRST,
        champion: list[str] | None = None,
        without: tuple[str, ...] = (),
        trials: bool = True,
        **values: Any,
    ) -> Run:
        ranker = ranker_of(kind, **values)
        run = Run(ranker, DAY, store, tmp_path / "work")
        for back in range(3):
            day = DAY - timedelta(days=back)
            broken = BrokenRule(
                rule="price_possible", severity=Severity.QUARANTINE, failed_rows=7, message="7 <rows>"
            )
            verdict = PartitionVerdict(
                verdict=PartitionDecision.WARN if back == 0 else PartitionDecision.PASS, headline="fine", source="shop", partition=day,
                rows_in=1000, rows_good=993, rows_quarantined=7, rules=(broken,), digest=f"d{back}",
            )  # fmt: skip
            store.put_json(verdict_key("shop", day), verdict.result())
        gate = judged(ranker, challenger, champion)
        history = [trial(0, 2.0), trial(1, 1.5), trial(2, None), trial(3, 1.7)] if trials else []
        best = {"training.learning_rate": 1e-4, "training.batch_size": 64} if trials else {}
        latency = {
            "rows": 1,
            "before_ms": 4.0,
            "after_ms": 2.5,
            "ratio": {"value": 0.62, "low": 0.6, "high": 0.65},
        }
        results: dict[str, dict[str, Any]] = {
            "examples": {
                "train": 900, "validation": 50, "holdout": 70, "items": 3, "partitions": 3, "rows_read": 3000,
                "train_partitions": ["2011-08-28", "2011-08-28"], "validation_partitions": ["2011-08-29"],
                "holdout_partitions": [str(DAY)], "holdout_begins": str(DAY), "excluded_partitions": {"2011-08-27": "stop"},
                "verdicts": {str(DAY): "d0"},
            },
            "tune": {
                "best": best, "loss": 1.5 if trials else None, "trials": len(history), "failed": 1, "stopped": 0,
                "ended": "tuning.trials", "trial_epochs": 0.3, "minutes": 1.5, "cost": 0.02, "nights": [],
                "history": history,
            },
            "train": {
                "loss": 1.1, "first_loss": 3.0, "validation_loss": 1.4, "first_validation_loss": 2.9, "steps": 100,
                "steps_planned": 120, "examples": 900, "samples_per_second": 33.0, "device": "cpu", "processes": 1,
                "validation_metric": {
                    "name": "recall@20", "value": 0.4, "low": 0.35, "high": 0.45, "lists": 1254, "first": 0.1,
                },
                "stopped_by": "max_minutes",
                "kept": {"weights": "best", "step": 60}, "base": {"name": "tiny", "revision": "r1"},
                "start": {"from": "champion", "version": CHAMPION, "run": "x", "reason": ""}, "training_seconds": 27.0,
                "values": best,
            },
            "blend": {"encoder": True, "losses": {"memory": 1.2, "with_encoder": 1.1},
                      "difference": {"value": -0.1, "low": -0.15, "high": -0.05}, "questions": 80,
                      "partitions": ["2011-08-29"], "queries_remembered": 12},
            "compress": {"precision": "int8", "steps": [{
                "step": "int8", "kept": True, "reason": "agreement 0.99", "agreement": 0.99, "pearson": 0.98, "alpha": 0.5,
                "items_int8": True, "bytes_before": 4_000_000, "bytes_after": 1_000_000, "latency": latency,
                "quality": {"value": 0.001, "low": -0.002, "high": 0.004},
            }]},
            "package": {"bytes": 1_500_000, "max_logit_difference": 1e-6, "latency_ms": {"1": 3.0, "8": 9.5},
                        "precision": "int8", "signature": {}},
            "gate": gate,
            "publish": {"published": gate["verdict"] != "reject", "verdict": gate["verdict"], "reason": "",
                        "version": 20110830001 if gate["verdict"] != "reject" else None, "uri": "s3://b/models/x"},
        }  # fmt: skip
        if kind != "search":
            del results["blend"]
        for name, result in results.items():
            if name not in without:
                run.stage(name).commit({**result, "seconds": 12.3, "run": run.id})
        if "train" not in without:
            points = [{"step": step, "seconds": step, "loss": 3 - step / 60} for step in (1, 50, 100)]
            points.insert(0, {"step": 0, "seconds": 0, "validation_loss": 2.9, "validation_recall@20": 0.1})
            points.append(
                {
                    "step": 100,
                    "seconds": 27,
                    "validation_loss": 1.4,
                    "validation_recall@20": 0.4,
                    "validation_recall@20_low": 0.35,
                    "validation_recall@20_high": 0.45,
                }
            )
            store.put_json(f"{run.stage('train').prefix}/curve.json", points)
        return run

    return make
