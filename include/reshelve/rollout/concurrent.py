"""When a session could have got either of two versions: the stretches of the deployment log in which a canary had a share.

Within one of them a session's hash alone says which version it gets (`routing.session_place`), whatever the hour, so the
sessions of both are alike but for the version. Outside of them one version serves at one time and another at another
time: night is no measure for day, and nothing compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from reshelve.deployments.deployment_log import Entry, Pointer, read_entry
from reshelve.deployments.release_table import Event
from reshelve.store.objects import ObjectStore

_MOVES_READ = 1000
FOLLOWING = timedelta(seconds=15)  # callers look at the pointer every second


@dataclass(frozen=True)
class Window:
    """The moves `first` to `last`, from `begins` to `ends` (None: still going on): a share of the sessions had the canary.

    The share is the same in all of it: where it grew, sessions changed their version, and another window begins.
    """

    first: int
    last: int
    begins: datetime
    ends: datetime | None
    stable: int
    canary: int
    share: float
    step: int

    def days(self, today: date) -> list[date]:
        """The days (UTC) that it touches, up to `today`."""
        last = min(today, (self.ends or datetime.max.replace(tzinfo=UTC)).astimezone(UTC).date())
        first = self.begins.astimezone(UTC).date()
        return [first + timedelta(days=count) for count in range((last - first).days + 1)]


def windows(log: Sequence[Entry]) -> list[Window]:
    """The windows of a piece of the log, oldest first. Holding a step, or waiting for a person, changes nothing in it."""
    found: list[Window] = []
    for before, entry in zip([None, *log], log, strict=False):
        now, at = entry.pointer, entry.pointer.moved_at
        same = before is not None and _arms(before.pointer) == _arms(now)
        if found and found[-1].ends is None:
            found[-1] = (
                replace(found[-1], last=now.sequence)
                if same
                else replace(found[-1], ends=at or found[-1].begins)
            )
        if (
            not same
            and at is not None
            and now.stable is not None
            and now.canary is not None
            and 0 < now.share < 1
        ):
            window = Window(now.sequence, now.sequence, at, None, now.stable, now.canary, now.share, now.step)
            found.append(window)
    return found


def _arms(pointer: Pointer) -> tuple[object, ...]:
    return pointer.stable, pointer.canary, pointer.share, pointer.step


def release_windows(store: ObjectStore, pointer: Pointer, version: int) -> list[Window]:
    """The windows of a version's newest release: from its offer to the pointer's move, or none where it is long ago."""
    log: list[Entry] = []
    for sequence in range(pointer.sequence, max(0, pointer.sequence - _MOVES_READ), -1):
        entry = read_entry(store, pointer.ranker, sequence)
        if entry is None:
            break
        log.append(entry)
        if entry.action == Event.OFFER and entry.pointer.canary == version:
            return [window for window in windows(log[::-1]) if window.canary == version]
    return []
