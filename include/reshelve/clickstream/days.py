"""When a source's days begin: its property, its shop or its tills count days by a clock of their own, events by UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator

from reshelve.config.yaml_models import nearest


def day_limits(day: date, zone: str) -> tuple[datetime, datetime]:
    """The first moments of `day` and of the next by the clocks of `zone`, in UTC. 23 or 25 hours apart where clocks change."""
    first, last = (_begins(each, zone) for each in (day, day + timedelta(days=1)))
    return first, last


def _begins(day: date, zone: str) -> datetime:
    # Of a midnight that the clocks skip, what they would have said: the very moment of the change.
    return datetime.combine(day, time.min, ZoneInfo(zone)).astimezone(UTC).replace(tzinfo=None)


def _known_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = nearest(zone, sorted(available_timezones()))
        guess = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            "not a time zone of the IANA database, such as Europe/Berlin, America/Los_Angeles or "
            f"Etc/GMT+7 (which is UTC-7){guess}"
        ) from None
    return zone


TimeZone = Annotated[str, AfterValidator(_known_zone)]
"""A name of the IANA database."""
