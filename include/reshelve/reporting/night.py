"""Everything that a night left behind, read once: what its report is made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from reshelve.kind_registry import stages_of
from reshelve.lineage.run import Result, Run
from reshelve.validation.verdicts import PartitionVerdict, validated_partitions


@dataclass(frozen=True)
class Night:
    """One run's results. Whatever is missing was not done: tuning left out, or the night ended before it."""

    run: Run
    results: dict[str, Result]  # of the stages that are done
    verdicts: list[PartitionVerdict] = field(default_factory=list)  # of the window's days, oldest first
    curve: list[dict[str, Any]] = field(default_factory=list)  # the training's points

    @classmethod
    def read(cls, run: Run) -> Night:
        """From S3."""
        found = {name: run.stage(name).result() for name in stages_of(run.ranker.kind)}
        results = {name: result for name, result in found.items() if result is not None}
        data = run.ranker.data
        first = run.partition - timedelta(days=data.window_days - 1)
        return cls(
            run=run,
            results=results,
            verdicts=validated_partitions(run.store, data.source, first, run.partition),
            curve=run.store.get_json(f"{run.stage('train').kept_prefix}/curve.json") or [],
        )

    def result(self, stage: str) -> Result:
        """A stage's result, empty where it was not done."""
        return self.results.get(stage, {})

    @property
    def taken_over(self) -> dict[str, str]:
        """Stage → the run that did it, of those that were not done for this night."""
        by = {name: str(result.get("run") or self.run.id) for name, result in self.results.items()}
        return {name: run for name, run in by.items() if run != self.run.id}

    @cached_property
    def digest(self) -> str:
        """16 hex digits over all of it: the same night, read again, needs no new report."""
        parts = [self.run.id, self.results, [verdict.digest for verdict in self.verdicts], self.curve]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def version(self) -> int | None:
        """What it published."""
        return self.result("publish").get("version")

    @property
    def tonight(self) -> PartitionVerdict | None:
        """The verdict on its own partition."""
        newest = self.verdicts[-1] if self.verdicts else None
        return newest if newest and newest.partition == self.run.partition else None

    @property
    def verdict(self) -> str:
        """promote, hold or reject; `unfinished` before the gate."""
        return str(self.result("gate").get("verdict", "unfinished"))
