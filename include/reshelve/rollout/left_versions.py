"""Versions that were left, and why: the way back after a rollback leads to what was rolled back, and so may a refresh."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from reshelve.deployments.deployment_log import Entry, Pointer, Revert

_MOVES_READ = 100


def left_because(pointer: Pointer, read: Callable[[int], Entry | None]) -> dict[int, Entry]:
    """Version → the rollback that left it, of those that a rollback may go to; `read` gives a move by its number.

    Only its last leaving counts: a version that was promoted again since, and gave way to a newer one, is not warned of.
    """
    found: dict[int, Entry] = {}
    open_ones = set(pointer.way_back) - {pointer.stable}
    after = read(pointer.sequence) if pointer.sequence else None
    for sequence in range(pointer.sequence - 1, max(-1, pointer.sequence - _MOVES_READ - 1), -1):
        if not open_ones or after is None:
            break
        before = read(sequence) if sequence else None
        was = None if before is None else before.pointer.stable
        if was in open_ones and after.pointer.stable != was:
            open_ones.discard(was)
            if was is not None and after.action == Revert.action:
                found[was] = after
        after = before
    return found


def taken_back(
    pointer: Pointer, version: int, read: Callable[[int], Entry | None], *, made_at: datetime
) -> Entry | None:
    """The rollback or withdrawal that ended the last release of `version`, or its time as the stable one; None where none did.

    Moves from before `made_at`, when the version was published, are not read.
    """
    if version in (pointer.stable, pointer.canary):
        return None
    after = read(pointer.sequence) if pointer.sequence else None
    while after is not None and (after.pointer.moved_at is None or after.pointer.moved_at >= made_at):
        before = read(after.sequence - 1) if after.sequence > 1 else None
        if before is None:
            return None
        if version == before.pointer.stable:  # it stays until a newer one takes its place
            return after if after.action == Revert.action else None
        if version == before.pointer.canary:
            return after
        after = before
    return None


def words(version: int, entry: Entry) -> str:
    """The warning for a person who is about to go there."""
    when = f"{entry.pointer.moved_at:%Y-%m-%d %H:%M} UTC" if entry.pointer.moved_at else "an unknown time"
    return (
        f"version {version} is the version you left because: {entry.pointer.reason or 'no reason was given'}"
        f" (rolled back by {entry.pointer.by}, {when})"
    )
