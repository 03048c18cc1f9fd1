"""How good the version is: against the champion and the baselines, by slice, and as probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reshelve.charts import ForestRow, forest, reliability
from reshelve.evaluation.baselines import baselines
from reshelve.notation import plain
from reshelve.reporting.night import Night
from reshelve.reporting.page import Figure, Part, Section, Table
from reshelve.reporting.words import NONE, count, figure, interval, signed, signed_interval

_MOST_SLICES = 40  # in the drawing; the table has all


def labels() -> dict[str, str]:
    """What people read for each ranker's name, in the order of reports: this version, the champion, the baselines."""
    return {
        "challenger": "this version",
        "champion": "champion",
        **{each.name: each.label for each in baselines()},
    }


def label(name: str) -> str:
    """What people read for a ranker's name."""
    return labels().get(name, name)


def named(rankers: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that people read, this version first, then the champion, then the baselines."""
    order = list(labels())
    known = sorted(rankers, key=lambda name: order.index(name) if name in order else len(order))
    return {label(name): rankers[name] for name in known}


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
        return Section("quality", "Quality", "The gate has not evaluated this night.", [])
    challenger, metric, differences = gate["challenger"], gate["metric"], against(gate)
    lead = (
        f"{metric} on {count(gate.get('counted', gate.get('queries')))} held-out questions{_of_days(gate)} in {count(gate.get('clusters'))} clusters{_left_out(gate)}. Differences are "
        "paired, question by question, with 95 % intervals from resampling whole baskets or queries."
    )
    rows = [("this version", figure(challenger["value"]), interval(challenger), NONE, NONE)]
    rows += [
        (
            label(name),
            figure(rival_value(gate, name)),
            NONE,
            signed(found["value"]),
            signed_interval(found),
        )
        for name, found in differences.items()
    ]
    head = ("Ranker", metric, "95 % interval", "This version minus it", "95 % interval")
    parts: list[Part] = _drawings(night, differences)
    parts.append(Table(head, rows, f"{metric} of each ranker"))
    metrics = gate.get("metrics") or {}
    if metrics:
        names, pooled = list(next(iter(metrics.values()))), gate.get("pooled_auc") or {}
        of_all = named({ranker: pooled.get(ranker) for ranker in metrics})
        others = [
            (
                ranker,
                *(figure(values.get(name)) for name in names),
                *((_with_interval(of_all[ranker]),) if pooled else ()),
            )
            for ranker, values in named(metrics).items()
        ]
        head = ("Ranker", *names, *(("auc of all rows together",) if pooled else ()))
        parts.append(Table(head, others, "Other metrics", folded=True))
    return Section("quality", "Quality", lead, parts)


def _of_days(gate: Mapping[str, Any]) -> str:
    days = gate.get("holdout_partitions") or []
    return f" of {' to '.join(dict.fromkeys([days[0], days[-1]]))}" if days else ""


def _left_out(gate: Mapping[str, Any]) -> str:
    """Questions without a value are in no mean, and that is said: of the gate's metric, and of those with others beside it."""
    undefined = gate.get("undefined") or {}
    left = undefined.get(gate["metric"], 0)
    more = ", ".join(f"{name} {count(n)}" for name, n in undefined.items() if n > left)
    said = f"; {count(left)} more are left out because no order is better than another" if left else ""
    return said + (f"; undefined for other metrics: {more}" if more else "")


def _with_interval(found: Mapping[str, Any] | None) -> str:
    return f"{figure(found['value'])} ({interval(found)})" if found else NONE


def _drawings(night: Night, differences: Mapping[str, Mapping[str, float]]) -> list[Part]:
    gate, gates = night.result("gate"), night.run.ranker.gates
    own, metric = gate["challenger"], gate["metric"]
    rivals = [(label(name), value) for name in differences if (value := rival_value(gate, name)) is not None]
    values = [ForestRow("this version", own["value"], own["low"], own["high"])]
    values += [ForestRow(name, value, strong=False) for name, value in rivals]
    said = "; ".join(f"{name} {figure(value)}" for name, value in rivals)
    alt = f"{metric}: this version {figure(own['value'])}, 95 % interval {interval(own)}; {said}."
    parts: list[Part] = [
        Figure(forest("values", values, metric, []), alt, f"{metric}, with this version's interval")
    ]
    if differences:
        rows = [
            ForestRow(f"− {label(name)}", found["value"], found["low"], found["high"])
            for name, found in differences.items()
        ]
        bounds = [(0.0, "equal")]
        if "champion" in differences:
            bounds.append((-gates.champion_tolerance, "tolerance"))
        said = "; ".join(
            f"minus {label(name)} {signed(found['value'])}, {signed_interval(found)}"
            for name, found in differences.items()
        )
        caption = "This version minus each rival; right of 0 is better"
        parts.append(
            Figure(forest("differences", rows, metric, bounds), f"{metric}: this version {said}.", caption)
        )
    return parts


def slices(night: Night) -> Section:
    """The metric by kind of question, against the champion, or where there is none against popularity."""
    gate = night.result("gate")
    found = gate.get("slices") or {}
    if not found:
        return Section("slices", "Slices", "No slice was measured.", [])
    metric, tolerance = gate["metric"], night.run.ranker.gates.slice_tolerance
    compared = any(each.get("difference") for each in found.values())
    held = [name for name, each in found.items() if each["enough"]]
    lead = (
        f"{metric} on {len(found)} slices of the questions; {len(held)} have enough questions for the "
        "tolerance to apply."
    )
    if compared and tolerance is not None:
        lead += (
            f" A version significantly worse on one of these, by more than {plain(tolerance)}, is rejected."
        )
    names = [name for name in labels() if name in next(iter(found.values()))["values"]]
    rows = [
        (
            name if each["enough"] else f"{name} (few)", count(each["queries"]),
            *(figure(each["values"].get(ranker)) for ranker in names),
            *((interval(each.get("interval")),) if not compared else (signed_interval(each.get("difference")),)),
        )
        for name, each in found.items()
    ]  # fmt: skip
    last = "Minus champion, 95 % interval" if compared else "This version, 95 % interval"
    table = Table(
        ("Slice", "Questions", *(label(name) for name in names), last), rows, f"All {len(found)} slices", folded=True
    )  # fmt: skip
    return Section("slices", "Slices", lead, [*_slice_drawing(found, metric, tolerance, compared), table])


def _slice_drawing(
    found: Mapping[str, Any], metric: str, tolerance: float | None, compared: bool
) -> list[Part]:
    key = "difference" if compared else "interval"
    rows = [
        ForestRow(f"{name} ({each['queries']})", each[key]["value"], each[key]["low"], each[key]["high"], strong=each["enough"])
        for name, each in found.items()
        if each.get(key)
    ][:_MOST_SLICES]  # fmt: skip
    if not rows:
        return []
    bounds = [(0.0, "equal")] if compared else []
    if compared and tolerance is not None:
        bounds.append((-tolerance, "bound"))
    lowest = min(rows, key=lambda row: row.value)
    what = "this version minus the champion" if compared else "this version"
    alt = (
        f"{metric} by slice, {what}, with 95 % intervals. The lowest is {lowest.name} with {signed(lowest.value) if compared else figure(lowest.value)}; "
        "every value is in the table below."
    )
    caption = f"{what.capitalize()}; number of questions in brackets; slices with too few are faint"
    return [Figure(forest("slices", rows, metric, bounds, wide=True), alt, caption, wide=True)]


def calibration(night: Night) -> Section:
    """Scores read as probabilities."""
    found = night.result("gate").get("calibration") or {}
    if not found or not found["challenger"]["reliability"]:
        return Section("calibration", "Calibration", "No score could be evaluated as a probability.", [])
    own = found["challenger"]
    error = own["error"]
    lead = "Are items with a score of 0.3 chosen three times in ten?"
    if error:
        lead += f" On average, scores are off by {figure(error['value'])} (95 % interval {interval(error)})."
    tables = {label(name): each["reliability"] for name, each in found.items() if each["reliability"]}
    alt = "Predicted and observed share: " + "; ".join(
        f"{figure(row['predicted'], 2)} came true {figure(row['observed'], 2)} of {count(row['predictions'])}"
        for row in own["reliability"]
    )
    drawn = Figure(
        reliability(tables),
        alt + ".",
        "The dotted line is perfect calibration; larger marks have more predictions",
    )
    measures = [
        ("error", "Calibration error"),
        ("auc", "AUC"),
        ("log_loss", "Log loss, nats"),
        ("spearman", "Spearman"),
        ("rmse", "RMSE"),
    ]
    shown = [
        (key, label) for key, label in measures if any(each.get(key) is not None for each in found.values())
    ]
    rows = [
        (
            label(name), count(each["predictions"]),
            *(figure(each[key]["value"] if key == "error" and each[key] else each[key]) for key, _ in shown),
        )
        for name, each in found.items()
    ]  # fmt: skip
    table = Table(
        ("Version", "Predictions", *(label for _, label in shown)), rows, "The same predictions, measured"
    )
    return Section("calibration", "Calibration", lead, [drawn, table])
