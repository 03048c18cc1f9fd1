"""The serving agent: beside each model server, makes it serve what the pointers say, and reports what it serves.

Each round looks at the pointers (S3), at the server (gRPC) and at the disk, takes the next safe step (`plan`),
and reports. Nothing is remembered that matters: killed at any moment and started again, it converges. With S3
away the server keeps what it has; with the server away the agent waits for it.
"""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.logs import logger
from reshelve.processes import only_one
from reshelve.serving.admin import ServerAdmin
from reshelve.serving.copier import Copier
from reshelve.serving.disk import Disk
from reshelve.serving.host import HostWatch
from reshelve.serving.model_config import CONFIG_FILE, ModelEntry, read_config, write_config
from reshelve.serving.plan import Observed, must_reload, next_entry, removable
from reshelve.serving.pointers import Pointers
from reshelve.serving.reports import Report, Serving, write_report
from reshelve.store.deployments import Pointer
from reshelve.store.objects import ObjectStore, impatient_store, object_store
from reshelve.store.signatures import trust

_REPORT_SECONDS = 10.0
_SAME_RELOAD_SECONDS = 2.0
_RETRY_LOAD_SECONDS = 60.0
_AWAY_SECONDS = 15.0

Entries = dict[str, ModelEntry]


def run_agent(models: str, server: str, name: str, every: float) -> None:
    """Run until SIGTERM or SIGINT.

    Raises AlreadyRunningError where another agent has the directory, ConfigurationError where no key is trusted.
    """
    if not name or "/" in name or name.startswith("."):
        raise ConfigurationError(
            f"--name {name!r} is no agent's name", "it becomes a file name in the reports"
        )
    if not trust().required:  # no key where one is needed: say so now, not at every version
        logger().warning("signatures are off: unsigned versions are loaded")
    directory = Path(models).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    with only_one(directory / ".agent.lock", "agent"):
        agent = Agent(directory, server, name, impatient_store(), object_store())
        try:
            agent.start()
            while not stop.is_set():
                agent.round()
                stop.wait(every)
        finally:
            agent.close()


class Agent:
    """One round after the other; `round` never raises for what S3, the server or the disk do."""

    def __init__(self, models: Path, server: str, name: str, store: ObjectStore, copies: ObjectStore) -> None:
        self.models, self.server, self.name, self.store = models, server, name, store
        self.disk = Disk(models)
        self.pointers = Pointers(store)
        self.copier = Copier(copies, self.disk)
        self.admin = ServerAdmin(server)
        self.host = HostWatch(server, models)
        self.applied: Entries = {}
        self.written: Entries | None = None
        self._sent: Entries | None = None
        self._sent_at = float("-inf")
        self._answered_at = time.monotonic()
        self._retried: dict[tuple[str, int], float] = {}
        self._reports: dict[str, Report] = {}
        self._reported_at: dict[str, float] = {}
        self._server_away: str | None = None
        self._refusal: str | None = None
        self._disk_trouble: str | None = None
        self._asked_at: dict[tuple[str, int], float] = {}

    def start(self) -> None:
        """Verify the disk and make models.config name only what verified: a server may start at any time."""
        self.disk.start()
        try:
            found = read_config(self.models)
        except DataError as error:
            logger().warning("models.config is damaged, written anew", problem=str(error))
            found = {}
        self.written = found or None
        kept = {name: entry.limited_to(self.disk.of(name)) for name, entry in found.items()}
        self.applied = {name: entry for name, entry in kept.items() if entry is not None}
        self._write(self.applied)
        logger(agent=self.name).info("agent started", server=self.server, models=str(self.models))

    def close(self) -> None:
        """Stop copying and close the connection; the server keeps serving."""
        self.copier.close()
        self.admin.close()

    def round(self) -> None:
        """Look, take the next step, report."""
        self.pointers.refresh()
        for ranker, pointer in self.pointers.known.items():
            first = (pointer.stable, pointer.previous, pointer.canary)
            self.copier.want(ranker, [version for version in first if version is not None])
        observed = None
        try:
            observed = self._observe()
            if observed is not None:
                self._step(observed)
                self._clean(observed)
            self._disk_trouble = None
        except OSError as error:
            self._disk_trouble = f"the disk: {error}"
            logger(models=str(self.models)).error("the disk refuses, serving goes on", problem=str(error))
        self._report(observed or {})

    def _observe(self) -> dict[str, Observed] | None:
        """What the server has of every ranker, or None while it does not answer."""
        try:
            found = {
                name: self.admin.observe(name)
                for name in sorted(self.pointers.known.keys() | self.applied.keys())
            }
        except TryAgainError as error:
            if self._server_away is None:
                logger(server=self.server).warning("the model server does not answer", problem=str(error))
            self._server_away = error.headline
            self._make_safe_to_start()
            return None
        if not found:
            return {}  # nothing to ask about yet: the first ranker tells whether the server is there
        if self._server_away is not None:
            logger(server=self.server).info("the model server answers")
        self._server_away, self._answered_at = None, time.monotonic()
        return found

    def _make_safe_to_start(self) -> None:
        """After a while without the server, take the labels out of models.config.

        A server that reads a label whose version cannot be loaded ends at its start, every time. Without labels it
        starts with what it can load, and the labels follow as soon as it answers.
        """
        if time.monotonic() - self._answered_at > _AWAY_SECONDS:
            self._write(
                {name: ModelEntry(e.name, e.base_path, e.versions) for name, e in self.applied.items()}
            )

    def _step(self, observed: dict[str, Observed]) -> None:
        wanted = dict(self.applied)  # a ranker whose pointer was not read yet keeps what it has
        for ranker, pointer in self.pointers.known.items():
            entry = next_entry(
                pointer,
                observed[ranker],
                self.disk.of(ranker),
                self.disk.base_path(ranker),
                self._failed_to_retry(ranker, observed[ranker]),
            )
            wanted.pop(ranker, None)
            if entry is not None:
                wanted[ranker] = entry
        # What a server refused may hold in part: it has to be told again, also what it was told before.
        refused = self._sent is not None and self._sent not in (self.applied, wanted)
        if refused or any(
            must_reload(wanted.get(r), self.applied.get(r), seen) for r, seen in observed.items()
        ):
            self._apply(wanted)

    def _failed_to_retry(self, ranker: str, observed: Observed) -> frozenset[int]:
        """Failed versions whose time has come: left out of the list for one round, they are tried anew."""
        due = set()
        for version in observed.failures:
            last = self._retried.setdefault((ranker, version), time.monotonic())
            if time.monotonic() - last > _RETRY_LOAD_SECONDS:
                self._retried[ranker, version] = time.monotonic()
                due.add(version)
        return frozenset(due)

    def _apply(self, wanted: Entries) -> None:
        """File first, then the reload: a server that polls the file meets the same answer either way."""
        now = time.monotonic()
        if wanted == self._sent and now - self._sent_at < _SAME_RELOAD_SECONDS:
            return
        self._write(wanted)
        self._sent, self._sent_at = wanted, now
        try:
            self.admin.reload(wanted.values())
        except TryAgainError as error:
            if self._refusal != str(error):
                logger(server=self.server).error("reload failed, trying again", problem=str(error))
            self._refusal = str(error)
            return
        self._refusal = None
        for name, entry in wanted.items():
            before = self.applied[name].versions if name in self.applied else frozenset()
            self._asked_at.update({(name, version): now for version in entry.versions - before})
        self.applied = wanted
        for entry in wanted.values():
            logger(ranker=entry.name).info(
                "told the server", versions=sorted(entry.versions), labels=dict(entry.labels)
            )

    def _write(self, entries: Entries) -> None:
        if entries != self.written or not (self.models / CONFIG_FILE).is_file():
            write_config(self.models, entries.values())
            self.written = entries

    def _clean(self, observed: dict[str, Observed]) -> None:
        for ranker, pointer in self.pointers.known.items():
            local = self.disk.of(ranker) - self.copier.busy_with(ranker)
            for version in removable(pointer, observed[ranker], self.applied.get(ranker), local):
                logger(ranker=ranker, version=version).info("removing a version that is no longer wanted")
                self.disk.remove(ranker, version)

    def _report(self, observed: dict[str, Observed]) -> None:
        if self.pointers.away is not None:
            return
        for ranker, pointer in self.pointers.known.items():
            report = self._report_of(pointer, observed.get(ranker))
            due = time.monotonic() - self._reported_at.get(ranker, float("-inf")) > _REPORT_SECONDS
            if due or not report.same_as(self._reports.get(ranker)):
                report = report.model_copy(update={"host": self.host.look()})
                try:
                    write_report(self.store, ranker, report)
                except TryAgainError as error:
                    logger(ranker=ranker).warning("not reported", problem=error.headline)
                    return
                self._reports[ranker], self._reported_at[ranker] = report, time.monotonic()

    def _failures(self, pointer: Pointer, observed: Observed) -> dict[int, str]:
        """Wanted versions that cannot serve here. A server lists an old failure until it begins the new load."""
        found = dict(self.copier.failures(pointer.ranker))
        for version, message in observed.failures.items():
            if time.monotonic() - self._asked_at.get((pointer.ranker, version), 0.0) > _SAME_RELOAD_SECONDS:
                found[version] = f"version {version} was not loaded: {message}"
        return {version: found[version] for version in sorted(found) if version in pointer.wanted}

    def _report_of(self, pointer: Pointer, observed: Observed | None) -> Report:
        seen = observed or Observed()
        failures = self._failures(pointer, seen)
        problems = [
            self._server_away,
            self.pointers.damaged.get(pointer.ranker),
            self._refusal,
            self._disk_trouble,
            *self.copier.troubles(pointer.ranker),
            *failures.values(),
        ]
        error = "; ".join(problem for problem in problems if problem)
        return Report(
            agent=self.name,
            server=self.server,
            at=datetime.now(UTC),
            sequence=pointer.sequence,
            serving=Serving(
                stable=seen.labels.get("stable"),
                previous=pointer.previous if pointer.previous in seen.available else None,
                canary=seen.labels.get("canary"),
                available=tuple(sorted(seen.available)),
                labels=dict(sorted(seen.labels.items())),
            ),
            failures=failures,
            error=error or None,
        )
