"""What a button's run would refuse for good is asked here first, and refused with the same words: no run is started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool

from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import Pointer
from reshelve.errors import ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.rollout import approvers
from reshelve.store.objects import ObjectStore


class RefusedError(HTTPException):
    """What was asked for would be refused by its run: it is not started."""

    def __init__(self, ranker: str, error: ReshelveError) -> None:
        words = f"{error.headline}: {error.detail}" if error.detail else error.headline
        super().__init__(409, f"{words}. Nothing was started.")
        self.ranker = ranker


async def refuse(
    check: Callable[..., None], store: ObjectStore, seen: Pointer, *asked: Any, **how: Any
) -> None:
    """Ask what the verb of the run asks first. Raises RefusedError with its reason, where trying again would not help."""
    try:
        await run_in_threadpool(check, store, seen, *asked, **how)
    except (DataError, ConfigurationError) as error:
        raise RefusedError(seen.ranker, error) from error
    except TryAgainError:
        return  # the run tries again by itself, and says in its log what it waits for


def require_releasable(store: ObjectStore, seen: Pointer, version: int, **how: bool) -> None:
    """That a version may be released; see `reshelve.rollout.release.require_releasable`."""
    from reshelve.rollout.release import require_releasable as check  # takes a second: not in the event loop

    check(store, seen, version, **how)


def require_no_hold(store: ObjectStore, seen: Pointer) -> None:
    """An approval promotes at once, and nothing remembers it: it is asked for again when the hold has ended."""
    try:
        freeze.require_no_hold(store, seen.ranker)
    except TryAgainError as error:
        raise RefusedError(seen.ranker, error) from error


def require_another_person(_: ObjectStore, seen: Pointer, name: str) -> None:
    """That who approves is not who requested, where the release asks for another person."""
    approvers.require_another_person(seen, name)
