"""A sign of life of whoever works on a release: `deployments/<ranker>/working/<version>.json`, written anew all the time.

A release is moved by a process that may be killed. Its version then keeps the one slot of the ranker, and customers in
its canary, with nobody to judge it. Who comes next tells the dead from the slow by the age of this object, by the
store's own clock. Nothing relies on it but the decision to withdraw: a driver that was only slow finds its release
taken back, and every move of it refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reshelve.deployments.pointer import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.deployments.signed_entries import entry_key
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.settings import settings
from reshelve.store.layout import deployments_of
from reshelve.store.objects import ObjectStore

_SIGNS = 4  # within a lease: three may be lost


def lease_key(ranker: str, version: int) -> str:
    """Each version has its own, so that a driver that wakes up late writes into nobody else's."""
    return f"{deployments_of(ranker)}working/{version}.json"


@contextmanager
def working(store: ObjectStore, ranker: str, version: int, by: str) -> Iterator[None]:
    """Give signs of life while the block runs.

    A block that ends takes them back. One that fails leaves the last one: whoever runs it again has as long as the dead.
    """
    key, stop = lease_key(ranker, version), threading.Event()
    document = {"by": by, "process": f"{os.uname().nodename}:{os.getpid()}"}

    def live() -> None:
        while not stop.wait(settings().release_lease_seconds / _SIGNS):
            try:
                store.put_json(key, document)
            except (TryAgainError, ConfigurationError) as error:
                logger(ranker=ranker, version=version).warning("no heartbeat", problem=error.headline)

    store.put_json(key, document)
    thread = threading.Thread(target=live, name="working", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        _end(thread, stop)
        raise
    _end(thread, stop)
    for error in store.delete_each([key]).values():  # the work is done all the same
        logger(ranker=ranker, version=version).warning("a heartbeat object remains", problem=error.headline)


def _end(thread: threading.Thread, stop: threading.Event) -> None:
    """No sign may be on its way when the last one is taken back."""
    stop.set()
    thread.join()


def abandoned(store: ObjectStore, pointer: Pointer) -> float | None:
    """Seconds since anybody gave a sign of life of the release under way; None where it is not abandoned.

    A release that is held or waits for a person is nobody's work on purpose. Where there never was a sign, or it was
    taken back, the age of the newest move counts.
    """
    if pointer.canary is None or pointer.held or pointer.state is ReleaseState.APPROVAL:
        return None
    ages = [
        found.age
        for key in (lease_key(pointer.ranker, pointer.canary), entry_key(pointer.ranker, pointer.sequence))
        if (found := store.get(key)) is not None
    ]
    quiet = min(ages, default=0.0)
    return quiet if quiet > settings().release_lease_seconds else None
