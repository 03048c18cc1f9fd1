"""Take back what was released or is being released. A name is enough: a ranker whose file is wrong can be taken back too."""

from __future__ import annotations

import time
from typing import Any

from reshelve.deployments.deployment_log import (
    Pointer,
    Revert,
    Role,
    Withdraw,
    entry_at,
    entry_if_valid,
    move_pointer,
    moved_since,
    settle,
)
from reshelve.deployments.freeze import forget_waiting
from reshelve.errors import DataError
from reshelve.logs import logger
from reshelve.rollout.fleet import summary, wait_for_label
from reshelve.rollout.left_versions import left_because, words
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import check_uploaded, require_manifest


def withdraw(
    name: str,
    *,
    version: int | None = None,
    by: str,
    reason: str = "",
    if_sequence: int | None = None,
    role: Role = Role.PERSON,
) -> dict[str, Any]:
    """End the release under way, or that of `version`; what is stable serves on. Nothing under way is no error.

    Raises MovedError where it is under way and the pointer has moved since move `if_sequence`.
    """
    store, words = object_store(), reason or "withdrawn"
    pointer = settle(store, name)
    if pointer is None or pointer.canary is None or version not in (None, pointer.canary):
        return {"ranker": name, "state": "unchanged", "withdrawn": None}
    moved = move_pointer(
        store, name, Withdraw(pointer.canary), by=by, reason=words, expected=if_sequence, role=role
    )
    forget_waiting(store, name, pointer.canary)
    return {"ranker": name, "state": "withdrawn", "withdrawn": pointer.canary, "sequence": moved.sequence}


def rollback(
    name: str,
    *,
    to: int | None,
    by: str,
    reason: str = "",
    dry_run: bool = False,
    resume: bool = False,
    if_sequence: int | None = None,
    role: Role = Role.PERSON,
) -> dict[str, Any]:
    """Serve the previous version (or `to`) again. A release under way ends.

    `if_sequence`: only where nobody else has moved the pointer since that move, and the previous version is that move's.
    `resume`: a try before this one may have moved the pointer already; going back once more would undo that.
    The answer's `state`: rolled_back, unchanged, or planned (`dry_run`); its `warning`, where a rollback had left that
    version. Raises DataError where there is nothing to roll back to, the version is not whole on S3 or the pointer has moved, TryAgainError where the pointer is moved but
    agents do not follow.
    """
    store, started = object_store(), time.monotonic()
    pointer = settle(store, name)
    if pointer is None or pointer.stable is None:
        raise DataError(f"{name}: nothing has been released", "there is no version to roll back to")
    if if_sequence is None and resume and _moved_last(store, pointer, Revert.action, by):
        if_sequence = pointer.sequence - 1
    seen = pointer if if_sequence is None else _pointer_at(store, pointer, if_sequence)
    version = to if to is not None else seen.previous
    if version is None:
        raise DataError(
            f"{name}: there is no previous version", "name one with --to; `reshelve status` lists them"
        )
    check_uploaded(store, require_manifest(store, name, version))
    Revert(version).apply(pointer)  # where it may not go, a dry run says so too
    result = {"ranker": name, "version": version, "from": pointer.stable, "canary_withdrawn": pointer.canary}
    if version in (left := left_because(pointer, lambda number: entry_if_valid(store, name, number))):
        result = {**result, "warning": words(version, left[version])}
        logger(ranker=name, version=version).warning(
            "this rolls back to a version that was abandoned", why=result["warning"]
        )
    if dry_run:
        if seen.sequence != pointer.sequence:
            raise moved_since(store, pointer, seen.sequence)
        plan = f"stable {pointer.stable} → {version}, previous {pointer.previous} → {pointer.stable}"
        return {**result, "state": "planned", "plan": plan, "sequence": pointer.sequence}
    moved = move_pointer(
        store, name, Revert(version), by=by, reason=reason or "rollback", expected=if_sequence, role=role
    )
    reports = wait_for_label(store, name, moved, version)
    state = "unchanged" if moved.sequence == pointer.sequence else "rolled_back"
    seconds = round(time.monotonic() - started, 2)
    logger(ranker=name, version=version).info(state, seconds=seconds, sequence=moved.sequence)
    return {
        **result,
        "state": state,
        "seconds": seconds,
        "sequence": moved.sequence,
        "agents": summary(reports),
    }


def require_way_back(store: ObjectStore, pointer: Pointer, version: int) -> None:
    """What `rollback` to a version would refuse, for whoever asks before they start it. Changes nothing. Raises DataError."""
    if pointer.stable is None:
        raise DataError(f"{pointer.ranker}: nothing has been released", "there is no version to roll back to")
    if version == pointer.stable:
        raise DataError(
            f"{pointer.ranker}: version {version} is stable already", "there is nothing to roll back to"
        )
    check_uploaded(store, require_manifest(store, pointer.ranker, version))
    Revert(version).apply(pointer)


def _moved_last(store: ObjectStore, pointer: Pointer, action: str, by: str) -> bool:
    """Whether the newest move is this one, by this mover."""
    return pointer.by == by and entry_at(store, pointer.ranker, pointer.sequence).action == action


def _pointer_at(store: ObjectStore, pointer: Pointer, sequence: int) -> Pointer:
    """The pointer as it was after a move. Raises MovedError where there is none of that number."""
    if sequence == pointer.sequence:
        return pointer
    if not 0 < sequence < pointer.sequence:
        raise moved_since(store, pointer, sequence)
    return entry_at(store, pointer.ranker, sequence).pointer
