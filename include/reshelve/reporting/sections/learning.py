"""What was tried, and how the training went."""

from __future__ import annotations

from typing import Any

from reshelve.charts import curves
from reshelve.config.ranker import Ranker
from reshelve.reporting.night import Night
from reshelve.reporting.page import FactTable, Figure, Part, Section, Table
from reshelve.reporting.trials_chart import axes_of, parallel
from reshelve.reporting.words import (
    NONE,
    count,
    duration,
    figure,
    interval,
    money,
    share,
    short,
    signed_interval,
)

_MOST_ROWS = 60


def tuning(night: Night) -> Section:
    """The trials, and what was taken from them."""
    found = night.result("tune")
    history = found.get("history") or []
    if not history:
        why = "Tuning was skipped" if found or night.result("train") else "There was no tuning"
        return Section("tuning", "Tuning", f"{why}: training used the ranker file's own values.", [])
    done = [entry for entry in history if entry["loss"] is not None]
    best = _best(done)
    by = Ranker.new_name(found["ended"] or "")
    ended = f"it ended by {by or 'being told to'}"
    if by == "tuning.space":
        ended = "it tried every combination of tuning.space"
    lead = f"{found['trials']} trials in {found['minutes']:.1f} minutes; {ended}."
    if best is not None:
        values = ", ".join(
            f"{path.rpartition('.')[2]} {short(value)}" for path, value in done[best]["values"].items()
        )
        lead += f" The best: {values}, with a loss of {figure(done[best]['loss'])}."
    parts: list[Part] = []
    if len(done) > 1 and best is not None:
        names = list(done[0]["values"])
        columns: dict[str, list[Any]] = {
            name: [entry["values"].get(name) for entry in done] for name in names
        }
        if len({entry["share"] for entry in done}) > 1:
            columns = {"share of a training": [entry["share"] for entry in done], **columns}
        losses = [entry["loss"] for entry in done]
        alt = (
            f"Parallel coordinates of {len(done)} trials over {', '.join(columns)} and the loss. Losses go from "
            f"{figure(min(losses))} to {figure(max(losses))}; the best trial is number {done[best]['trial']}."
        )
        axes = axes_of(columns, losses, night.run.ranker.tuning.space)
        edges = [name for name, axis in axes.items() if axis.at_edge(best)]
        if edges:
            lead += (
                f" It is at the edge of the range of {' and '.join(edges)}: better values may lie outside."
            )
        caption = (
            "Each line is a trial; the bold one was chosen. The axes are the ranker file's ranges; lower "
            "losses are better."
        )
        parts.append(Figure(parallel(axes, losses, best), alt, caption, wide=True))
    parts.append(_trials(history))
    paid = [
        (
            "Stopped or failed",
            f"{found.get('stopped', 0)} stopped by the budget, {found.get('failed', 0)} failed",
        )
    ]
    if found.get("cost"):
        paid.append(("Cost of the trials", money(found["cost"])))
    if found.get("nights"):
        paid.append(("Uses the trials of", ", ".join(found["nights"])))
    parts.append(FactTable(paid))
    return Section("tuning", "Tuning", lead, parts)


def _best(done: list[dict[str, Any]]) -> int | None:
    """The place of the trial that was taken: least loss at the largest budget that any finished."""
    return min(
        range(len(done)), key=lambda n: (-done[n]["rung"], done[n]["loss"], done[n]["trial"]), default=None
    )


def _trials(history: list[dict[str, Any]]) -> Table:
    names = list(history[0]["values"])
    rows = [
        (
            str(entry["trial"]), entry["status"], *(short(entry["values"].get(name)) for name in names),
            share(entry["share"]), figure(entry["loss"]), duration(entry["seconds"]),
        )
        for entry in history[:_MOST_ROWS]
    ]  # fmt: skip
    shown = (
        f"Every trial ({len(history)})"
        if len(rows) == len(history)
        else f"The first {_MOST_ROWS} of {len(history)}"
    )
    head = (
        "Trial",
        "Ended",
        *(name.rpartition(".")[2] for name in names),
        "Share of a training",
        "Loss",
        "Time",
    )
    return Table(head, rows, shown, words=2, folded=True)


def training(night: Night) -> Section:
    """The curves, and what was kept."""
    found = night.result("train")
    if not found:
        return Section("training", "Training", "Nothing was trained.", [])
    metric = found.get("validation_metric") or {}
    name = str(metric.get("name", ""))
    lead = (
        f"{count(found['steps'])} steps at {found['samples_per_second']:.0f} examples a second on {found['device']}; "
        f"the validation loss went from {figure(found.get('first_validation_loss'), 3)} to {figure(found['validation_loss'], 3)}."
    )
    parts: list[Part] = []
    if len(night.curve) > 1:
        alt = (
            f"Loss by step: in training from {figure(found['first_loss'], 3)} to {figure(found['loss'], 3)}, in validation "
            f"from {figure(found.get('first_validation_loss'), 3)} to {figure(found['validation_loss'], 3)}. {name} in "
            f"validation from {figure(metric.get('first'))} to {figure(metric.get('value'))}{_certainty(metric)}."
        )
        parts.append(Figure(curves(night.curve, name), alt, "Training and validation", wide=True))
    stopped, kept = found.get("stopped_by"), found.get("kept") or {}
    values = found.get("values") or {}
    rows = [
        (
            f"{name} in validation",
            f"{figure(metric.get('first'))} before, {figure(metric.get('value'))} after{_certainty(metric)}",
        ),
        ("Weights kept", f"{kept.get('weights', 'last')}, of step {kept.get('step', found['steps'])}"),
        (
            "Ended by",
            f"training.{stopped}" if stopped else f"all {count(found.get('steps_planned'))} steps being done",
        ),
        ("Processes", count(found.get("processes"))),
        ("From tuning", ", ".join(f"{path} {short(value)}" for path, value in values.items()) or NONE),
    ]
    return Section("training", "Training", lead, [*parts, FactTable(rows)])


def _certainty(metric: dict[str, Any]) -> str:
    """How far the validation metric can be believed; nights before it was counted in lists do not say."""
    if metric.get("low") is None:
        return ""
    return f" (95 % interval {interval(metric)}, on {count(metric['lists'])} lists)"


def blend(night: Night) -> Section | None:
    """Search rankers: memory and transformer."""
    found = night.result("blend")
    if not found:
        return None
    losses, used = found["losses"], found["encoder"]
    lead = (
        "Counts of past choices and the transformer's score, combined using held-out days: the transformer "
        + (
            "stays."
            if used
            else "is left out: it does not improve the answers by more than chance would explain."
        )
    )
    rows = [
        ("Loss with counts only", figure(losses["memory"])),
        ("Loss with the transformer", figure(losses["with_encoder"])),
        *(
            [("Difference, 95 % interval", signed_interval(found["difference"]))]
            if "difference" in found
            else []
        ),
        ("Questions", count(found["questions"])),
        ("Queries remembered", count(found["queries_remembered"])),
        *([("Queries asked", count(found["queries_asked"]))] if "queries_asked" in found else []),
    ]
    return Section("blend", "Blend", lead, [FactTable(rows)])
