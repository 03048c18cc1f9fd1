"""Which validated partitions a night learns from, and how they are split: by time, or by query where there is no time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from reshelve.config.ranker import Data
from reshelve.errors import DataError
from reshelve.lineage.run import Run
from reshelve.validation.verdicts import PartitionDecision, validated_partitions

_VALIDATION = 10  # one query in so many of those not held out


@dataclass(frozen=True)
class Fold:
    """Queries by their hash: one of `folds` parts is held out, and of the others a tenth validates."""

    number: int
    folds: int

    @property
    def part(self) -> str:
        """The SQL expression of an event's part, over `norm`."""
        return f"""CASE WHEN md5_number_lower(norm) % {self.folds:d} = {self.number:d} THEN 'holdout'
                        WHEN md5_number_upper(norm) % {_VALIDATION:d} = 0 THEN 'validation' ELSE 'train' END"""


@dataclass(frozen=True)
class Split:
    """Partitions of the window, oldest first; every training day is before every validation day, and so on.

    With a `fold` it is queries that are split, and every day is a training day.
    """

    train: tuple[date, ...]
    validation: tuple[date, ...]
    holdout: tuple[date, ...]
    begins: date  # of the holdout: what a ranker may know was before this day
    digests: dict[date, str]  # of the verdicts: which bytes were read
    excluded: dict[date, str]  # partitions of the window that were not read, and their verdict
    fold: Fold | None = None

    @property
    def days(self) -> tuple[date, ...]:
        """All partitions that are read."""
        return self.train + self.validation + self.holdout

    def part(self, day: date) -> str:
        """`train`, `validation` or `holdout`; with a fold every day is of training, and queries are parted."""
        if self.fold:
            return "train"
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
    if newest is None or newest.verdict is PartitionDecision.MISSING:
        raise DataError(
            f"partition {run.partition} of {data.source} is missing",
            "expected a landed and validated partition; the night waits for it",
        )
    if newest.verdict is PartitionDecision.STOP:
        raise DataError(f"partition {run.partition} of {data.source} was stopped", newest.headline)
    usable = {verdict.partition: verdict.digest for verdict in verdicts if verdict.usable}
    excluded = {verdict.partition: verdict.verdict.value for verdict in verdicts if not verdict.usable}
    if data.split == "query":
        return split_by_query(usable=usable, excluded=excluded, data=data, partition=run.partition)
    return split_by_time(usable=usable, excluded=excluded, data=data)


def split_by_query(
    *, usable: dict[date, str], excluded: dict[date, str], data: Data, partition: date
) -> Split:
    """All partitions, and the fold that is held out: `data.fold`, or another one each day."""
    number = partition.toordinal() % data.folds if data.fold is None else data.fold
    begins = partition + timedelta(days=1)
    days = tuple(sorted(usable))
    return Split(days, (), (), begins, dict(usable), dict(excluded), Fold(number, data.folds))


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
        begins=rest[data.validation_partitions],
        digests=dict(usable),
        excluded=dict(excluded),
    )
