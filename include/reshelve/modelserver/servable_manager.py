"""Versions from START to END: loads beside what serves, retries, and unloads only when something newer is AVAILABLE.

All state changes happen under one lock, in `_reconcile`, which runs after every event (a new list of aspired
versions, a load or an unload that ended). Loading itself runs in a small pool, so that a bad version cannot hold
up a good one, and at a low priority while another version serves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from grpc import StatusCode

from reshelve.logs import logger
from reshelve.modelserver.load_priority import stand_back
from reshelve.modelserver.servables import Servable
from reshelve.modelserver.server_options import ServerOptions, four_per_processor
from reshelve.modelserver.serving_error import ServingError, not_found


class ServableState(IntEnum):
    """`ModelVersionStatus.State` of the API."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus tells of one version; `sequence` orders all state changes of the server."""

    number: int
    state: ServableState
    error: ServingError | None
    sequence: int


@dataclass
class _Version:
    """A version under management; it is forgotten when it has ended and nobody wants it."""

    model: str
    number: int
    path: Path
    aspired: bool = True
    state: ServableState = ServableState.START
    handed_over: bool = False  # to the load or unload pool
    servable: Servable | None = None
    requests: int = 0


@dataclass(eq=False)
class _Awaited:
    """Models that somebody waits for: what the first version of each came to, once all have got somewhere."""

    models: frozenset[str]
    since: int
    reached: dict[str, VersionStatus] | None = None

    def look(self, statuses: Mapping[str, Mapping[int, VersionStatus]]) -> None:
        """Runs at every change of state: what happens between two looks must not change the answer."""
        if self.reached is not None:
            return
        found = {}
        for model in sorted(self.models):
            for _, status in sorted(statuses.get(model, {}).items(), reverse=True):
                if status.sequence > self.since and status.state in (
                    ServableState.AVAILABLE,
                    ServableState.END,
                ):
                    found[model] = status
                    break
            else:
                return
        self.reached = found


class ServableManager:
    """Brings what is loaded to what is aspired, and lends loaded versions to requests."""

    def __init__(self, load: Callable[[Path], Servable], options: ServerOptions) -> None:
        self._load_servable = load
        self._options = options
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._wanted: dict[str, dict[int, Path]] = {}
        self._versions: dict[str, dict[int, _Version]] = {}
        self._statuses: dict[str, dict[int, VersionStatus]] = {}
        self._sequence = 0
        # What the first list names loads all at once, as in TensorFlow Serving.
        self._loads = ThreadPoolExecutor(four_per_processor(), thread_name_prefix="first-load")
        self._awaited: list[_Awaited] = []
        self._unloads = ThreadPoolExecutor(1, thread_name_prefix="unload")
        self._log = logger(part="model-server")

    def aspire(self, model: str, versions: Mapping[int, Path]) -> None:
        """Say which versions of a model should be loaded, and where they are; none unloads it."""
        with self._changed:
            self._wanted[model] = dict(versions)
            self._reconcile(model)

    def statuses(self, model: str) -> list[VersionStatus]:
        """Every version ever seen of the model, newest first; what ended stays listed."""
        with self._changed:
            return [status for _, status in sorted(self._statuses.get(model, {}).items(), reverse=True)]

    @property
    def sequence(self) -> int:
        """The number of the last state change, for `wait_until_available`."""
        with self._changed:
            return self._sequence

    def wait_until_available(
        self, models: Iterable[str], since: int, noun: str, stop: threading.Event | None = None
    ) -> None:
        """Block until each model has had a version AVAILABLE or END after `since`, for ever if none comes.

        The first version of a model to get there decides for it, the newest of several. Raises ServingError (UNKNOWN)
        naming the models for which that was END; `noun` is how it calls them.
        """
        awaited = _Awaited(frozenset(models), since)
        with self._changed:
            awaited.look(self._statuses)
            self._awaited.append(awaited)
            while awaited.reached is None and not self._stopping.is_set():
                if stop is not None and stop.is_set():
                    break
                self._changed.wait(0.2)
            self._awaited.remove(awaited)
        reached = awaited.reached or {}
        failed = {model: status for model, status in reached.items() if status.state is ServableState.END}
        if failed:
            named = "".join(
                f"{{{{name: {model} version: {status.number}}}{_due_to(status.error)}}}, "
                for model, status in failed.items()
            )
            raise ServingError(
                StatusCode.UNKNOWN, f"{len(failed)} {noun}(s) did not become available: {{{named}}}"
            )

    def finish_first_loads(self, stop: threading.Event | None = None) -> None:
        """Wait for every load that has begun; from now on they share `num_load_threads`."""
        with self._changed:
            first = self._loads
            self._loads = ThreadPoolExecutor(self._options.num_load_threads, thread_name_prefix="load")
        done = threading.Thread(target=first.shutdown, name="first loads", daemon=True)
        done.start()
        while done.is_alive() and not (stop is not None and stop.is_set()):
            done.join(0.2)

    @contextmanager
    def lend(self, model: str, number: int | None) -> Iterator[tuple[int, Servable]]:
        """A loaded version (None: the newest) that stays loaded while the block runs. Raises ServingError."""
        with self._changed:
            versions = self._versions.get(model, {})
            loaded = [key for key, version in versions.items() if version.state is ServableState.AVAILABLE]
            if number is None:
                version = versions[max(loaded)] if loaded else None
            else:
                version = versions[number] if number in loaded else None
            if version is None or version.servable is None:
                wanted = f"Latest({model})" if number is None else f"Specific({model}, {number})"
                raise not_found(f"Servable not found for request: {wanted}")
            version.requests += 1
        try:
            yield version.number, version.servable
        finally:
            with self._changed:
                version.requests -= 1
                if version.requests == 0 and version.state is ServableState.UNLOADING:
                    self._reconcile(model)

    def close(self) -> None:
        """Stop loading and free what is loaded."""
        self._stopping.set()
        self._loads.shutdown(wait=True, cancel_futures=True)
        self._unloads.shutdown(wait=True, cancel_futures=True)
        with self._changed:
            for versions in self._versions.values():
                for version in versions.values():
                    if version.servable is not None and version.requests == 0:
                        version.servable.close()
            self._versions.clear()

    def _reconcile(self, model: str) -> None:
        """Take every step that is due for the model. The caller holds the lock."""
        wanted = self._wanted.get(model, {})
        versions = self._versions.setdefault(model, {})
        for version in list(versions.values()):
            version.aspired = version.number in wanted
            if not version.aspired and version.state is ServableState.START and not version.handed_over:
                self._move(version, ServableState.END)
            if not version.aspired and version.state is ServableState.END:
                del versions[version.number]
        for number, path in wanted.items():
            if number not in versions:
                versions[number] = _Version(model, number, path)
                self._move(versions[number], ServableState.START)
        self._unload_unaspired(versions)
        for _, version in sorted(versions.items(), reverse=True):
            if (
                version.state is ServableState.START
                and not version.handed_over
                and not self._stopping.is_set()
            ):
                version.handed_over = True
                self._loads.submit(self._load, version)

    def _unload_unaspired(self, versions: dict[int, _Version]) -> None:
        """An unwanted version goes only when a wanted one serves, or when none is wanted at all."""
        aspired = [version for version in versions.values() if version.aspired]
        may_go = not aspired or any(version.state is ServableState.AVAILABLE for version in aspired)
        for version in versions.values():
            if may_go and not version.aspired and version.state is ServableState.AVAILABLE:
                version.handed_over = False
                self._move(version, ServableState.UNLOADING)
            if version.state is ServableState.UNLOADING and version.requests == 0 and not version.handed_over:
                version.handed_over = True
                self._unloads.submit(self._unload, version)

    def _load(self, version: _Version) -> None:
        with self._changed:
            if not version.aspired:  # it was dropped while it waited for a thread
                self._move(version, ServableState.END)
                self._reconcile(version.model)
                return
            self._move(version, ServableState.LOADING)
        error: ServingError | None = None
        for attempt in range(self._options.max_num_load_retries + 1):
            if attempt and (
                self._stopping.wait(self._options.load_retry_interval_seconds) or not version.aspired
            ):
                break
            try:
                version.servable, error = self._read(version.path), None
                break
            except Exception as failure:  # noqa: BLE001  whatever a model does, the server lives on
                error = ServingError.of(failure)
                self._log.warning(
                    "load failed", model=version.model, version=version.number, error=str(error)
                )
        with self._changed:
            self._move(version, ServableState.END if error else ServableState.AVAILABLE, error)
            self._reconcile(version.model)

    def _read(self, path: Path) -> Servable:
        """Load a version; where others serve, their requests go first. Raises what the load raises."""
        with self._changed:
            served = any(
                version.state is ServableState.AVAILABLE
                for versions in self._versions.values()
                for version in versions.values()
            )
        if not served:
            return self._load_servable(path)
        # This thread takes the lock that every request takes: only the work itself stands back.
        niceness, patience = self._options.load_niceness, self._options.load_patience_seconds
        return stand_back(lambda: self._load_servable(path), niceness, patience)

    def _unload(self, version: _Version) -> None:
        servable, version.servable = version.servable, None
        if servable is not None:
            servable.close()
        with self._changed:
            self._move(version, ServableState.END)
            self._versions[version.model].pop(version.number, None)
            self._reconcile(version.model)

    def _move(self, version: _Version, state: ServableState, error: ServingError | None = None) -> None:
        self._sequence += 1
        version.state = state
        status = VersionStatus(version.number, state, error, self._sequence)
        self._statuses.setdefault(version.model, {})[version.number] = status
        for awaited in self._awaited:
            awaited.look(self._statuses)
        self._changed.notify_all()
        self._log.info("version", model=version.model, version=version.number, state=state.name)


def _due_to(error: ServingError | None) -> str:
    return f" due to error: {error}" if error else ""
