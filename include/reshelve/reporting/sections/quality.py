"""How good the version is: against the champion and the baselines, by slice, and as probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reshelve.reporting.night import Night
from reshelve.reporting.page import Part, Section, Table
from reshelve.reporting.words import NONE, count, figure, interval, signed, signed_interval

NAMES = {
    "challenger": "this version",
    "champion": "champion",
    "popularity": "popularity",
    "bm25": "BM25",
    "cooccurrence": "chosen together",
}


def against(gate: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """This version minus each rival, {value, low, high}, the champion first where it was compared."""
    champion = gate.get("champion") or {}
    found = {}
    if champion.get("difference") is not None:
        found["champion"] = {
            "value": champion["difference"], "low": champion["difference_low"], "high": champion["difference_high"]
        }  # fmt: skip
    return found | dict(gate.get("differences") or {})


def rival_value(gate: Mapping[str, Any], name: str) -> float | None:
    """A rival's own metric."""
    return (gate.get("champion") or {}).get("value") if name == "champion" else gate["baselines"].get(name)


def quality(night: Night) -> Section:
    """The gate's comparison."""
    gate = night.result("gate")
    if not gate:
        return Section("quality", "Quality", "The gate has not judged this night.", [])
    challenger, metric = gate["challenger"], gate["metric"]
    lead = (
        f"{metric} on {count(gate.get('queries'))} held-out questions. Differences are paired, question by question, with 95 % "
        "intervals from resampling whole baskets or queries."
    )
    rows = [("this version", figure(challenger["value"]), interval(challenger), NONE, NONE)]
    rows += [
        (
            NAMES.get(name, name),
            figure(rival_value(gate, name)),
            NONE,
            signed(found["value"]),
            signed_interval(found),
        )
        for name, found in against(gate).items()
    ]
    head = ("Ranker", metric, "95 % interval", "This version minus it", "95 % interval")
    parts: list[Part] = [Table(head, rows, f"{metric} of each ranker")]
    metrics = gate.get("metrics") or {}
    if metrics:
        names = list(next(iter(metrics.values())))
        others = [
            (NAMES.get(ranker, ranker), *(figure(values.get(name)) for name in names))
            for ranker, values in metrics.items()
        ]
        parts.append(Table(("Ranker", *names), others, "Other metrics", folded=True))
    return Section("quality", "Quality", lead, parts)
