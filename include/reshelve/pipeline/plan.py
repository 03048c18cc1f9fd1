"""The plan of a night: what it would do, what it would not have to do again, how long it takes, what it costs.

Nothing is written, here or on S3.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from reshelve.clickstream.events import landed_prefix
from reshelve.config.ranker import Ranker
from reshelve.config.waves import waves
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.examples.partitions import Split, choose_partitions
from reshelve.examples.size import NEAR, gigabytes
from reshelve.lineage.run import Result, Run
from reshelve.model.base import resolve_base
from reshelve.model.base_home import home_of
from reshelve.pipeline.changed import changed
from reshelve.pipeline.estimate import NOTHING, estimate
from reshelve.pipeline.past_nights import PastNight, past_nights, size_of
from reshelve.pipeline.references import load_ranker
from reshelve.pipeline.reuse import planned
from reshelve.store.versions import partition_of
from reshelve.training.warm_start import expected_start
from reshelve.validation.verdicts import PartitionDecision, validated_partitions

# What past nights say little about: a night with another of these takes another time.
_RESHAPES = ("model.", "examples.", "data.")
NOT_JUDGED = "not judged yet"


def _changes(ranker: Ranker) -> dict[str, Any]:
    """What a run replaces of its ranker file; nothing where that is wrong by now, and the run goes on as it began."""
    try:
        return changed(load_ranker(ranker.name), ranker)
    except ConfigurationError:
        return {}


def plan(run: Run) -> Result:
    """The plan of a run whose stages are, or are not, done. Raises TryAgainError where the store is away."""
    ranker = run.ranker
    found = planned(run)
    done = {stage.name: stage.result for stage in found if stage.result is not None}
    nights = past_nights(run)
    examples = done.get("examples", {}).get("train")
    stages = []
    for stage in found:
        again = stage.result is None
        expected = estimate(stage.name, ranker, nights, examples) if again else NOTHING
        stages.append(
            {"stage": stage.name, "reused": not again, **_rounded(asdict(expected)), "why": stage.why}
        )
    changes = _changes(ranker)
    left = [stage for stage in stages if not stage["reused"]]
    unknown = [stage["stage"] for stage in left if stage["seconds"] is None]
    minutes: dict[str, float | None] = {
        key: round(sum(stage[key] or 0 for stage in left) / 60, 1) for key in ("seconds", "low", "high")
    }
    if unknown and not minutes["seconds"]:  # nothing that is known takes time: 0 would be wrong
        minutes = dict.fromkeys(minutes)
    price = ranker.tuning.price_per_hour * ranker.tuning.parallel
    data = _data(run)
    split, ends = _split(run, data, done)
    return {
        "headline": _headline(left, minutes["seconds"], unknown, ends),
        "run": run.id,
        "partition": run.partition.isoformat(),
        "data": data,
        "changes": changes,
        "tuning": _tuning(ranker),
        "training": f"{ranker.training.epochs:g} epochs, at most {ranker.training.max_minutes:g} minutes, "
        f"from {_start(run, split, done)}",
        "compression": ranker.compression.said,
        "stages": stages,
        "size": _size(done.get("examples", {}), nights),
        "minutes": minutes["seconds"],
        "minutes_low": minutes["low"],
        "minutes_high": minutes["high"],
        "cost": round(minutes["seconds"] / 60 * price, 4)
        if price and minutes["seconds"] is not None
        else None,
        "past_nights": len(nights),
        "not_known": unknown,
        "doubtful": sorted(path for path in changes if path.startswith(_RESHAPES)),
        "champion": _champion(run),
    }


def _size(examples: Result, nights: list[PastNight]) -> dict[str, Any] | None:
    """How large a version will be, by this run's examples or else the newest night's; None where neither says."""
    found = next(filter(None, (size_of(examples), *(night.size for night in nights))), None)
    if found is None:
        return None
    said = f"{found['items']:,} products, a version of at most {gigabytes(found['version_bytes'])} GB"
    if "items_that_fit" in found:
        near = ", near the most that fit" if found["items"] > NEAR * found["items_that_fit"] else ""
        said += f"{near}; some {found['items_that_fit']:,} such products fit"
    return {"said": said, **found}


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in found.items()}


def _data(run: Run) -> dict[str, Any]:
    """The window, and what is known of its partitions."""
    data = run.ranker.data
    first = run.partition - timedelta(days=data.window_days - 1)
    verdicts = validated_partitions(run.store, data.source, first, run.partition)
    own = next((found for found in verdicts if found.partition == run.partition), None)
    return {
        "source": data.source,
        "first": first.isoformat(),
        "last": run.partition.isoformat(),
        "usable_partitions": sum(found.usable for found in verdicts),
        "verdict": _verdict(run, own.verdict if own else PartitionDecision.MISSING),
    }


def _verdict(run: Run, judged: PartitionDecision) -> str:
    """What is known of the night's own day; files that came after a verdict of "missing" are not judged yet."""
    landed = landed_prefix(run.ranker.data.source, run.partition)
    if judged is PartitionDecision.MISSING and any(True for _ in run.store.list(landed)):
        return NOT_JUDGED
    return judged.value


def _tuning(ranker: Ranker) -> str:
    tuning = ranker.tuning
    if not (tuning.trials and tuning.space):
        return "left out"
    money = f" and {tuning.max_cost:g} in money" if tuning.max_cost is not None else ""
    rounds = sum(1 for _ in waves(tuning))
    every = ", every point of tuning.space," if tuning.most_trials < tuning.trials else ""
    return f"{tuning.most_trials} trials{every} in {rounds} rounds, at most {tuning.max_minutes:g} minutes{money}"


def _champion(run: Run) -> dict[str, Any]:
    """What the version would be compared with, as things are."""
    pointer = read_pointer(run.store, run.ranker.name)
    version = pointer.stable if pointer else None
    newer = version is not None and partition_of(version) > run.partition
    return {"version": version, "newer_than_this_night": newer}


def _split(run: Run, data: dict[str, Any], done: dict[str, Result]) -> tuple[Split | None, str]:
    """The days the run would learn from, and why it would come to nothing; empty where it would not."""
    if data["verdict"] == PartitionDecision.MISSING.value:
        return None, f"nothing of {data['source']} {data['last']} has landed: this run would be skipped"
    if data["verdict"] == PartitionDecision.STOP.value:
        return None, f"{data['source']} {data['last']} was stopped by validation: this run would fail"
    if data["verdict"] == NOT_JUDGED or "examples" in done:
        return None, ""
    try:
        return choose_partitions(run), ""
    except DataError as error:
        return None, f"{error.headline}: this run would fail"


def _start(run: Run, split: Split | None, done: dict[str, Result]) -> str:
    """The weights that training would start from."""
    base = run.ranker.model.base
    if home_of(base) is None:  # it would have to be fetched to be compared with the champion's
        return f"the champion if it is compatible, else {base}" if run.ranker.training.warm_start else base
    days = done["examples"].get("validation_partitions") if "examples" in done else split and split.validation
    start = expected_start(run, resolve_base(base, run.store), str(days[0]) if days else None)
    return f"the champion {start.version}" if start.version is not None else f"{base} ({start.reason})"


def _headline(left: list[dict[str, Any]], minutes: float | None, unknown: list[str], ends: str) -> str:
    if not left:
        return "everything is done: this run would do nothing"
    if ends:
        return ends
    if minutes is None:
        return f"{len(left)} stages to do; how long they take is not known yet: no past nights"
    said = f"{len(left)} stages to do, about {minutes:g} minutes"
    return said + (f", and {', '.join(unknown)}, for which there are no past nights" if unknown else "")
