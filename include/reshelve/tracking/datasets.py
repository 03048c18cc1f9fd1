"""What each verb reads and writes, as datasets that lineage tools can join from one night to the next.

A dataset is a key prefix of the bucket without the run in it; which run or day of it was read or written is its version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a stage reads; its own workspace is what it writes.
_READS: Mapping[str, tuple[str, ...]] = {
    "tune ask": ("examples",),
    "tune evaluate": ("examples",),
    "tune tell": ("examples",),
    "tune run": ("examples",),
    "train": ("examples", "tune"),
    "blend": ("examples", "train"),
    "compress": ("examples", "train"),
    "package": ("train", "compress"),
    "gate": ("package", "examples"),
    "publish": ("package", "gate"),
    "report": ("examples", "tune", "train", "compress", "package", "gate", "publish"),
    "track": ("report",),
}
_RELEASING = ("release", "approve", "withdraw", "rollback")


@dataclass(frozen=True)
class Dataset:
    """A key prefix of the bucket. `rows` and `bytes` are those of this version of it, where they are known."""

    name: str
    version: str = ""
    rows: int | None = None
    bytes: int | None = None
    broken_rules: Sequence[tuple[str, str, str]] = ()  # name, severity, what it found


@dataclass(frozen=True)
class RunLineage:
    """One run of a verb; `facts` are its verdict and names, never data."""

    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def lineage_of(verb: str, options: Mapping[str, Any], result: Mapping[str, Any]) -> RunLineage:
    """What a verb read and wrote, by the options it was run with and the result it printed (empty where it failed)."""
    facts = {
        key: result[key]
        for key in ("run", "verdict", "version", "headline", "precision", "metric", "reused")
        if isinstance(result.get(key), str | int | bool)
    }
    ranker, day = str(options.get("ranker", "")), str(options.get("partition", ""))
    if verb in ("land", "validate"):
        return _of_clickstream(verb, str(options.get("source", "")), day, result, facts)
    if verb in _RELEASING and ranker:
        version = str(result.get("version") or options.get("version") or "")
        return RunLineage(
            [Dataset(f"models/{ranker}", version)], [Dataset(f"deployments/{ranker}", version)], facts
        )
    if not ranker or (verb != "examples" and verb not in _READS):
        return RunLineage(facts=facts)
    run = str(result.get("run") or day)

    def workspace(stage: str, **more: Any) -> Dataset:
        return Dataset(f"runs/{ranker}/{stage}", run, **more)

    if verb == "examples":
        source = result.get("source")  # a stage that failed does not say
        read = [Dataset(f"validated/{source}", day, result.get("rows_read"))] if source else []
        return RunLineage(read, [workspace("examples", rows=result.get("train"))], facts)
    inputs = [workspace(stage) for stage in _READS[verb]]
    if verb == "publish" and result.get("published"):
        return RunLineage(inputs, [Dataset(f"models/{ranker}", str(result["version"]))], facts)
    if verb in ("publish", "track"):
        return RunLineage(inputs, [], facts)
    return RunLineage(inputs, [workspace(verb.partition(" ")[0], bytes=result.get("bytes"))], facts)


def _of_clickstream(
    verb: str, source: str, day: str, result: Mapping[str, Any], facts: Mapping[str, Any]
) -> RunLineage:
    landed = f"clickstream/{source}"
    if verb == "land":
        return RunLineage([], [Dataset(landed, day, result.get("rows"))], facts)
    broken = [
        (str(rule.get("rule")), str(rule.get("severity")), str(rule.get("message")))
        for rule in result.get("rules") or []
    ]
    read = Dataset(landed, day, result.get("rows_in"), broken_rules=broken)
    return RunLineage([read], [Dataset(f"validated/{source}", day, result.get("rows_good"))], facts)
