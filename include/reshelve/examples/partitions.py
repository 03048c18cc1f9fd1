"""Which validated partitions a night learns from, and how time splits them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from reshelve.clickstream.verdicts import Decision, validated_partitions
from reshelve.errors import DataError
from reshelve.lineage import Run
from reshelve.rankers import Data


@dataclass(frozen=True)
class Split:
    """Partitions of the window, oldest first; every training day is before every validation day, and so on."""

    train: tuple[date, ...]
    validation: tuple[date, ...]
    holdout: tuple[date, ...]
    digests: dict[date, str]  # of the verdicts: which bytes were read
    excluded: dict[date, str]  # partitions of the window that were not read, and their verdict

    @property
    def days(self) -> tuple[date, ...]:
        """All partitions that are read."""
        return self.train + self.validation + self.holdout

    def part(self, day: date) -> str:
        """`train`, `validation` or `holdout`."""
        if day >= self.holdout[0]:
            return "holdout"
        return "validation" if day >= self.validation[0] else "train"


def choose_partitions(run: Run) -> Split:
    """The run's partitions, split by time.

    Raises DataError where the run's own partition is missing or stopped, or the window holds too few.
    """
    data = run.ranker.data
    first = run.partition - timedelta(days=data.window_days - 1)
    verdicts = validated_partitions(run.store, data.source, first, run.partition)
    newest = verdicts[-1] if verdicts and verdicts[-1].partition == run.partition else None
    if newest is None or newest.verdict is Decision.MISSING:
        raise DataError(
            f"partition {run.partition} of {data.source} is missing",
            "expected it landed and validated; the night starts when it is there",
        )
    if newest.verdict is Decision.STOP:
        raise DataError(f"partition {run.partition} of {data.source} was stopped", newest.headline)
    return split_by_time(
        usable={verdict.partition: verdict.digest for verdict in verdicts if verdict.usable},
        excluded={verdict.partition: verdict.verdict.value for verdict in verdicts if not verdict.usable},
        data=data,
    )


def split_by_time(*, usable: dict[date, str], excluded: dict[date, str], data: Data) -> Split:
    """The newest partitions are the holdout, those before them validation, the rest training.

    Raises DataError where nothing is left to train on.
    """
    days = sorted(usable)
    kept = data.holdout_partitions + data.validation_partitions
    if len(days) <= kept:
        raise DataError(
            f"{data.source} has {len(days)} usable partitions in {data.window_days} days, too few to train on",
            f"expected more than {kept}: {data.holdout_partitions} for the gate, "
            f"{data.validation_partitions} for validation, at least one for training",
        )
    train, rest = days[:-kept], days[-kept:]
    return Split(
        train=tuple(train),
        validation=tuple(rest[: data.validation_partitions]),
        holdout=tuple(rest[data.validation_partitions :]),
        digests=dict(usable),
        excluded=dict(excluded),
    )
