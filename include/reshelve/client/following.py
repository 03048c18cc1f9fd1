"""A caller's view of what one ranker should serve, and its reports: a thread that looks at S3 and never fails a request."""

from __future__ import annotations

import random
import threading
import time

from reshelve.deployments.deployment_log import Pointer, VerifiedLog, pointer_key
from reshelve.errors import ReshelveError
from reshelve.logs import logger
from reshelve.protocol.traffic import Meter, write_traffic
from reshelve.store.objects import ObjectStore

_LOG_SECONDS = 5.0  # a pointer object that is kept from being written hides no move for longer


class Follower:
    """`pointer` is the newest state that the log proves; it stays valid while S3 is away, says no, or was tampered with."""

    def __init__(self, ranker: str, store: ObjectStore, meter: Meter, every: float) -> None:
        """Look once, then about every `every` seconds, and report what `meter` counted."""
        self.ranker = ranker
        self.pointer: Pointer | None = None
        self._store, self._meter, self._every = store, meter, every
        self._log = VerifiedLog(store, ranker, None)
        self._tag: str | None = None
        self._looked_at = float("-inf")
        self._away = False
        self._stop = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._run, name=f"pointer of {ranker}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report once more."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(self._every * random.uniform(0.8, 1.2)):
            self._look()
            self._report()
        self._report()

    def _look(self) -> None:
        try:
            found, changed = self._store.get_if_changed(pointer_key(self.ranker), self._tag)
            now = time.monotonic()
            if (found is not None and changed) or now - self._looked_at > _LOG_SECONDS:
                self.pointer = self._log.look() or self.pointer
                self._tag = self._tag if found is None else found.etag
                self._looked_at = now
            self._away = False
        except ReshelveError as error:  # whatever it is, the next look may find it mended
            if not self._away:
                logger(ranker=self.ranker).warning("the pointer is not read", problem=error.headline)
            self._away = True
        except Exception as error:  # noqa: BLE001 - of what lies in the bucket: no request fails for it
            if not self._away:
                logger(ranker=self.ranker).exception("the pointer is not read", problem=str(error)[:300])
            self._away = True

    def _report(self) -> None:
        if self._away:
            return
        try:
            write_traffic(self._store, self.ranker, self._meter.report())
        except ReshelveError as error:
            logger(ranker=self.ranker).warning("traffic is not reported", problem=error.headline)
