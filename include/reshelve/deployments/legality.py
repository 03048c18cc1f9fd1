"""Whether one move of the log follows from the state before it: the table of a release, and who may make which move. Pure."""

from __future__ import annotations

from pydantic import ValidationError

from reshelve.deployments.moves import stable_after
from reshelve.deployments.pointer import Entry, Pointer
from reshelve.deployments.release_table import Event
from reshelve.store.roles import Role

MOVERS = frozenset({Role.RELEASE, Role.PERSON})
_SAID = ("sequence", "moved_at", "by", "reason")  # of the move itself, not of what serves


def roles_for(entry: Entry) -> frozenset[Role]:
    """The roles of which one has to sign a move."""
    event = event_of(entry)
    held = event is Event.OFFER and entry.pointer.plan.allow_held
    return frozenset({Role.PERSON}) if held or event in (Event.APPROVE, Event.VOUCH) else MOVERS


def event_of(entry: Entry) -> Event | None:
    """What happened, or None where this code does not know it."""
    try:
        return Event(entry.action)
    except ValueError:
        return None


def contradiction(entry: Entry) -> str:
    """Why an entry is wrong by itself, whatever was before it; empty where it is not."""
    if event_of(entry) is not Event.APPROVE or entry.pointer.plan.may_approve(entry.pointer.by):
        return ""
    return f"{entry.pointer.by} requested this release, and another person has to approve it"


def misfit(before: Pointer, entry: Entry) -> str:
    """Why a move does not follow from the state before it; empty where it does."""
    event, now = event_of(entry), entry.pointer
    if why := contradiction(entry):
        return why
    if event is Event.PROMOTE and not before.plan.may_approve(before.by):
        return f"{before.by}, who requested this release, let it go on, and another person has to approve it"
    if event is None:
        return f"{entry.action!r} is no move that is known here"
    try:
        wanted = _expected(before, event, now)
    except ValidationError as error:
        return f"{entry.action}: {error.errors()[0]['msg']}"
    if wanted is None:
        return f"{entry.action} does not lead on from {before.state.value}"
    wanted = wanted.model_copy(update={name: getattr(now, name) for name in _SAID})
    wrong = [name for name in Pointer.model_fields if getattr(wanted, name) != getattr(now, name)]
    return (
        f"{entry.action} from {before.state.value} does not make {', '.join(wrong)} what it says"
        if wrong
        else ""
    )


def _expected(before: Pointer, event: Event, now: Pointer) -> Pointer | None:
    if event is Event.VOUCH:
        return before
    if event is Event.OFFER:
        offered = now.canary is not None and now.canary != before.stable
        return before.after(event, canary=now.canary, plan=now.plan) if offered else None
    if event is Event.PROMOTE:
        return None if before.canary is None else before.after(event, **stable_after(before, before.canary))
    if event is Event.ROLLBACK:
        known = now.stable is not None and now.stable in before.way_back
        return before.after(event, **stable_after(before, now.stable or 0)) if known else None
    return before.after(event, held=now.held if event is Event.HOLD else "")
