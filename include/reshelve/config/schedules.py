"""When a night starts: cron expressions that a scheduler can follow."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")  # those of Airflow
_DAYS, _MONTHS = "sun|mon|tue|wed|thu|fri|sat", "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
# Not `H` and `R`, which croniter knows too: a schedule that is drawn anew at each look is none.
_FIELD = re.compile(rf"(?:[0-9]|[*/,?#L-]|{_DAYS}|{_MONTHS})+", re.ASCII | re.IGNORECASE)
_LONGEST_STEPS = {"minute": 60, "hour": 24, "day": 31, "month": 12, "weekday": 7}
_BEGIN = datetime(2024, 1, 1)  # any moment: what never comes after it never comes


def _cron(text: str) -> str:
    """`text` with single spaces. Raises ValueError where no moment fits it."""
    from croniter import (
        CroniterBadDateError,
        CroniterError,
        croniter,
    )  # Airflow's own; it costs every import 60 ms

    fields = text.split()
    if text in PRESETS:
        return text
    if len(fields) != 5 or not all(_FIELD.fullmatch(field) for field in fields):
        raise ValueError(
            f"expected five fields, minute hour day month weekday, as in 0 3 * * *, or one of {', '.join(PRESETS)}"
        )
    for (name, most), field in zip(_LONGEST_STEPS.items(), fields, strict=True):
        if any(int(step) > most for step in re.findall(r"/([0-9]+)", field)):
            raise ValueError(
                f"{name} {field}: expected a step of at most {most}, for a longer one is never made"
            )
    expression = " ".join(fields)
    try:
        croniter(expression, _BEGIN).get_next(datetime)
    except CroniterBadDateError as error:
        raise ValueError("expected a schedule with a next time: no day of any year fits this one") from error
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"expected a cron expression, as in 0 3 * * *: {error}") from error
    return expression


Schedule = Annotated[str, AfterValidator(_cron)]
