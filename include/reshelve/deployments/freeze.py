"""Releases of a ranker that must wait: `deployments/<ranker>/hold.json`. Taking a version back is never held.

A hold of the watch names its cause, and the watch lifts it when the cause is gone; a person's hold waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reshelve.errors import DataError, TryAgainError
from reshelve.names import RankerName, Version, require_ranker
from reshelve.store.layout import deployments_of
from reshelve.store.objects import ObjectStore, PreconditionFailedError


class Hold(BaseModel):
    """Why releases wait."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ranker: RankerName
    by: str
    reason: str
    at: datetime
    cause: str = Field("", description="What the watch found; empty: a person holds.")
    waiting: Version | None = Field(None, description="The newest version whose release it stopped.")
    requested_by: str = Field("", description="Who requested that release; empty: nobody, a schedule.")


def hold_key(ranker: str) -> str:
    """The hold's key on S3."""
    return f"{deployments_of(require_ranker(ranker))}hold.json"


def read_hold(store: ObjectStore, ranker: str) -> Hold | None:
    """The hold, or None. Raises DataError where it is damaged: what it held must not go on by that."""
    found = store.get(hold_key(ranker))
    try:
        return None if found is None else Hold.model_validate_json(found.body)
    except ValidationError as error:
        raise DataError(f"{hold_key(ranker)} is damaged", "reshelve lift takes it away") from error


def hold(store: ObjectStore, ranker: str, *, by: str, reason: str, cause: str = "") -> Hold:
    """Hold a ranker's releases. What is held stays held as it was, but a person's hold takes the place of the watch's."""
    wanted = Hold(ranker=ranker, by=by, reason=reason, at=datetime.now(UTC), cause=cause)
    document = wanted.model_dump(mode="json")
    try:
        store.put_json(hold_key(ranker), document, if_absent=True)
    except PreconditionFailedError:
        before = read_hold(store, ranker)
        if before is not None and (cause or not before.cause):
            return before
        store.put_json(hold_key(ranker), document)
    return wanted


def lift(store: ObjectStore, ranker: str) -> Hold | None:
    """Let releases are resumed; the hold that was, or None. A damaged one goes too."""
    try:
        found = read_hold(store, ranker)
    except DataError:
        found = None
    store.delete([hold_key(ranker)])
    return found


def remember_waiting(store: ObjectStore, ranker: str, version: int, requested_by: str = "") -> None:
    """Write down in the hold that a version waits for its end, and who requested its release: that person does not become
    another one by the watch that begins it. A hold that changed or went meanwhile is left alone.
    """

    def later(held: Hold) -> Hold:
        if held.waiting is not None and held.waiting >= version:
            return held
        return held.model_copy(update={"waiting": version, "requested_by": requested_by})

    _change(store, ranker, later)


def forget_waiting(store: ObjectStore, ranker: str, version: int) -> None:
    """A version that was taken back does not wait any more: the end of the hold would release it against that word."""

    def without(held: Hold) -> Hold:
        gone = {"waiting": None, "requested_by": ""}
        return held.model_copy(update=gone) if held.waiting == version else held

    _change(store, ranker, without)


def _change(store: ObjectStore, ranker: str, change: Callable[[Hold], Hold]) -> None:
    found = store.get(hold_key(ranker))
    try:
        held = None if found is None else Hold.model_validate_json(found.body)
    except ValidationError:
        return  # whoever asks whether releases are held is told
    if found is None or held is None:
        return
    wanted = change(held)
    if wanted != held:
        with suppress(PreconditionFailedError):
            store.put_json(hold_key(ranker), wanted.model_dump(mode="json"), if_match=found.etag)


def require_no_hold(store: ObjectStore, ranker: str) -> None:
    """Raises TryAgainError while releases are frozen."""
    found = read_hold(store, ranker)
    if found is not None:
        raise TryAgainError(
            f"{ranker}: releases are frozen: {found.reason}",
            f"since {found.at:%Y-%m-%d %H:%M} UTC by {found.by}; to resume releases: reshelve lift --ranker {ranker}",
        )
