"""A night as a run of MLflow: its settings, figures and curves, its trials as runs below it, its report, its version.

Sent again, what has changed is added to the same run: a night is known there by its tag `reshelve.run`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from reshelve.errors import ConfigurationError
from reshelve.lineage.run import Result, Run, code_version
from reshelve.logs import logger
from reshelve.reporting.address import FILE, STAGE
from reshelve.reporting.night import Night
from reshelve.settings import settings
from reshelve.tracking.server import SETTING, Tracking

Point = tuple[str, float, int, int]  # name, value, step, milliseconds since 1970


def track(run: Run) -> Result:
    """Send the night to the tracking server: whatever is done of it.

    Raises ConfigurationError where no server is named or it refuses, TryAgainError where it is away.
    """
    uri = settings().tracking_uri
    if not uri:
        raise ConfigurationError(f"{SETTING} is not set", "expected the address of an MLflow tracking server")
    night = Night.read(run)
    if not night.results:
        return {"tracked": False, "headline": f"{run.id}: no stage is done, so there is nothing to track"}
    with Tracking.open(uri) as server:
        experiment = server.experiment(f"reshelve/{run.ranker.name}")
        found = server.runs(experiment, f"tags.`reshelve.run` = '{run.id}'")
        began = _now()
        name = f"{run.partition.isoformat()} {run.digest}"
        mine = found[0] if found else server.new_run(experiment, name, {"reshelve.run": run.id}, began)
        info = mine["info"]
        logged = {param["key"] for param in (mine.get("data") or {}).get("params") or []}
        server.log(
            info["run_id"],
            params={key: value for key, value in params(night).items() if key not in logged},
            metrics=_unless_logged(mine, [*figures(night, began), *curve(night, began)]),
            tags=tags(night),
        )
        trials = _trials(server, night, experiment, info["run_id"], began)
        report = _report(server, night, info)
        version = _version(server, night, info["run_id"])
        server.end(info["run_id"], "FINISHED" if night.result("publish") else "FAILED", _now())
    logger(stage="track", run=run.id).info("tracked", mlflow_run=info["run_id"], trials=trials)
    return {
        "tracked": True, "run": run.id, "mlflow_run": info["run_id"], "trials": trials, "report": report,
        "model_version": version,
    }  # fmt: skip


def params(night: Night) -> dict[str, str]:
    """The ranker file's keys, dotted, with the values that the training had."""
    found = dict(_leaves("", night.run.ranker.model_dump(mode="json")))
    return found | {key: _text(value) for key, value in (night.result("train").get("values") or {}).items()}


def tags(night: Night) -> dict[str, str]:
    """What the night is, and became."""
    run, gate = night.run, night.result("gate")
    return {
        "reshelve.ranker": run.ranker.name,
        "reshelve.partition": run.partition.isoformat(),
        "reshelve.code_version": code_version(),
        "reshelve.verdict": night.verdict,
        "reshelve.stages": ", ".join(night.results),
        **({"reshelve.reasons": "\n".join(gate["reasons"])} if gate.get("reasons") else {}),
        **({"reshelve.version": str(night.version)} if night.version else {}),
    }


def figures(night: Night, at: int) -> Iterator[Point]:
    """What the stages measured: every number of the gate's comparison, the package, the training and each stage's time."""
    gate, train, package = (night.result(name) for name in ("gate", "train", "package"))
    measured: dict[str, Any] = {
        "gate": {key: gate.get(key) for key in ("challenger", "champion", "baselines", "differences", "metrics", "latency", "queries")},
        "train": {key: train.get(key) for key in ("loss", "validation_loss", "validation_metric", "steps", "samples_per_second")},
        "package": {key: package.get(key) for key in ("bytes", "latency_ms")},
        "examples": {key: night.result("examples").get(key) for key in ("train", "validation", "holdout", "items")},
        "seconds": {name: result.get("seconds") for name, result in night.results.items()},
    }  # fmt: skip
    for name, value in _numbers("", measured):
        yield metric_name(name), value, 0, at


def curve(night: Night, at: int) -> Iterator[Point]:
    """The training's points, by step."""
    for point in night.curve:
        for key, value in point.items():
            if key not in ("step", "seconds") and _is_number(value):
                yield metric_name(f"curve.{key}"), float(value), int(point["step"]), at


def metric_name(name: str) -> str:
    """A name that MLflow takes: recall@20 → recall_at_20."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"))


def _trials(server: Tracking, night: Night, experiment: str, parent: str, at: int) -> int:
    """The tuning's trials as runs below the night's, those that are not there yet; how many it has."""
    history = night.result("tune").get("history") or []
    there = server.runs(experiment, f"tags.`mlflow.parentRunId` = '{parent}'") if history else []
    known = {tag["value"] for run in there for tag in run["data"]["tags"] if tag["key"] == "reshelve.trial"}
    for entry in history:
        number = str(entry["trial"])
        if number in known:
            continue
        labels = {
            "mlflow.parentRunId": parent,
            "reshelve.trial": number,
            "reshelve.run": f"{night.run.id}/trial",
        }
        run = server.new_run(experiment, f"trial {number}", labels, at)["info"]["run_id"]
        measured = [
            (key, float(entry[key]), 0, at)
            for key in ("loss", "validation_loss", "latency_ms", "seconds", "share")
            if _is_number(entry.get(key))
        ]
        server.log(
            run, params={key: _text(value) for key, value in entry["values"].items()}, metrics=measured
        )
        server.end(run, "FINISHED" if entry["loss"] is not None else "FAILED", at)
    return len(history)


def _report(server: Tracking, night: Night, info: Mapping[str, Any]) -> str:
    """Put the report beside the run; where it went, or why not."""
    key = f"{night.run.prefix}/{STAGE}/{FILE}"
    found = night.run.store.get(key)
    if found is None:
        return "there is none"
    if server.upload(info["artifact_uri"], FILE, found.body):
        return "sent"
    server.log(info["run_id"], tags={"reshelve.report": f"s3://{night.run.store.bucket}/{key}"})
    return "named: the server does not serve artifacts"


def _version(server: Tracking, night: Night, run: str) -> str | None:
    """The published version as one of the registered model `reshelve-<ranker>`, which names its place on S3."""
    published, ranker = night.result("publish"), night.run.ranker
    if not published.get("published"):
        return None
    name = f"reshelve-{ranker.name}"
    server.registered(name, ranker.title)
    labels = {"reshelve.version": str(published["version"]), "reshelve.verdict": night.verdict}
    said = f"Version {published['version']} of {ranker.name}: {night.verdict}"
    return server.model_version(name, run, published["uri"], said, labels)


def _unless_logged(mine: Mapping[str, Any], points: list[Point]) -> list[Point]:
    """Points that the run does not end with already: sent again, a figure would have a history of equal values."""
    last = {
        metric["key"]: (metric["value"], int(metric.get("step", 0)))
        for metric in (mine.get("data") or {}).get("metrics") or []
    }
    newest = {name: (value, step) for name, value, step, _ in points}
    return [point for point in points if last.get(point[0]) != newest[point[0]]]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), each)
    else:
        yield metric_name(path), _text(value)


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key != "version":  # a name, not a measure
                yield from _numbers(f"{path}.{key}" if path else str(key), each)
    elif _is_number(value):
        yield path, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _now() -> int:
    return int(time.time() * 1000)
