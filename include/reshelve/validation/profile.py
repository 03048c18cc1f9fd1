"""What is remembered of a partition's good rows, so that later days can be compared with it.

A profile is counts alone: rows, events of each type, and histograms of the numbers in bins that are the same
for every day, shop and engine. So profiles add up, and none holds a row, a user, a session or a query.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

BINS_PER_DOUBLING = 16  # neighbouring bins differ by 4.4 %
NUMBERS = ("price", "quantity", "position", "grade")
HISTOGRAMS = (*NUMBERS, "hour", "event_type")


class Profile(BaseModel):
    """One partition in counts. `histograms`: column → bin → good rows; NULL and what is not finite are in none."""

    model_config = ConfigDict(frozen=True)

    partition: date
    rows: int  # landed
    good: int
    histograms: dict[str, dict[str, int]] = {}

    @property
    def types(self) -> dict[str, int]:
        """Good rows of each event type."""
        return self.histograms.get("event_type", {})


def _bin(name: str) -> str:
    """The SQL of a number's bin: its sign and sixteenth of a doubling, 0 for zero, NULL for none."""
    value = f'CAST("{name}" AS DOUBLE)'
    size = f"CAST(floor({BINS_PER_DOUBLING} * log2(abs({value})) + 1e-6) AS BIGINT)"
    return (
        f"CASE WHEN {value} IS NULL OR NOT isfinite({value}) THEN NULL WHEN {value} = 0 THEN '0'"
        f" WHEN {value} > 0 THEN concat('+', CAST({size} AS VARCHAR(20))) ELSE concat('-', CAST({size} AS VARCHAR(20))) END"
    )


def profile_query(table: str) -> str:
    """One pass over `table` for all histograms: a row of HISTOGRAMS' bins and a count for each combination."""
    bins = [f'{_bin(name)} AS "{name}"' for name in NUMBERS]
    bins += ["CAST(CAST(extract(hour FROM event_time) AS INTEGER) AS VARCHAR(20)) AS hour", "event_type"]
    names = ", ".join(f'"{name}"' for name in HISTOGRAMS)
    return f"SELECT {names}, count(*) AS events FROM (SELECT {', '.join(bins)} FROM {table}) AS binned GROUP BY {names}"


def histograms(rows: Iterable[tuple[Any, ...]]) -> dict[str, dict[str, int]]:
    """The answer of `profile_query` as a histogram for each column."""
    found: dict[str, Counter[str]] = {name: Counter() for name in HISTOGRAMS}
    for *bins, events in rows:
        for name, value in zip(HISTOGRAMS, bins, strict=True):
            if value is not None:
                found[name][str(value)] += int(events)
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}


def total(profiles: Iterable[Profile], column: str) -> dict[str, int]:
    """The histograms of several days as one."""
    summed: Counter[str] = Counter()
    for profile in profiles:
        summed.update(profile.histograms.get(column, {}))
    return dict(summed)


def place(name: str) -> float:
    """The number in the middle of a bin; hours are themselves, texts have none (NaN)."""
    if name == "0":
        return 0.0
    if name[0] not in "+-":
        return float(name) if name.isdigit() else math.nan
    size = 2 ** ((int(name[1:]) + 0.5) / BINS_PER_DOUBLING)
    return size if name[0] == "+" else -size


def quantile(histogram: dict[str, int], share: float) -> float:
    """The number below which `share` of the rows lie, exact to half a bin (2.2 %). Raises ValueError where there are none."""
    if not histogram:
        raise ValueError("no rows")
    left = share * sum(histogram.values())
    ordered = sorted(histogram.items(), key=lambda entry: place(entry[0]))
    for name, count in ordered:
        left -= count
        if left <= 0:
            return place(name)
    return place(ordered[-1][0])
