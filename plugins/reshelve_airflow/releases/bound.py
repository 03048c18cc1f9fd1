"""A button is bound to what its page showed: where the pointer has moved since, nothing is started (409)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, status

from reshelve.deployments.deployment_log import Pointer, moved_since, read_pointer
from reshelve_airflow.releases.access import Editor, RankerName, Shown
from reshelve_airflow.releases.bucket import board


class StalePageError(HTTPException):
    """What the page showed is not so any more."""

    def __init__(self, ranker: str, words: str) -> None:
        super().__init__(status.HTTP_409_CONFLICT, words)
        self.ranker = ranker


def require_unmoved(ranker: str, shown: Shown) -> Pointer:
    """The pointer, where it is at the move that the page showed. Raises StalePageError with what was moved since."""
    store = board().store
    pointer = read_pointer(store, ranker) or Pointer(ranker=ranker)
    if pointer.sequence != shown.sequence:
        raise StalePageError(ranker, moved_since(store, pointer, shown.sequence).detail)
    return pointer


def bound(ranker: RankerName, shown: Editor) -> Pointer:
    """The pointer as the page showed it."""
    return require_unmoved(ranker, shown)


def require_version(pointer: Pointer, version: int) -> None:
    """Raises StalePageError where the release under way is another version's, or none is."""
    if pointer.canary != version:
        now = f"version {pointer.canary} is" if pointer.canary else "none is"
        raise StalePageError(pointer.ranker, f"version {version} is not being released; {now}")


Bound = Annotated[Pointer, Depends(bound)]
