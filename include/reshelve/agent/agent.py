"""The serving agent: beside each model server, makes it serve what the pointers say, and reports what it serves.

Each round looks at the pointers (S3), at the server (gRPC) and at the disk, takes the next safe step (`plan`),
and reports. What matters is on the disk: killed at any moment and started again, it converges. With S3 away the
server keeps what it has; with the server away it finds, whenever it starts, a file that it can start from.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reshelve.agent.admin import ServerAdmin, ServerRefusedError
from reshelve.agent.copier import Copier
from reshelve.agent.disk import Disk
from reshelve.agent.inspector import Inspector
from reshelve.agent.load_watch import LoadWatch
from reshelve.agent.loads import Loads
from reshelve.agent.placeholder import PLACEHOLDER, placeholder_path, write_placeholder
from reshelve.agent.readiness import write_wanted_labels
from reshelve.agent.reloading import Reloads
from reshelve.agent.reporter import AgentReporter
from reshelve.agent.server_plan import Observed, must_reload, next_entry, removable, start_entry
from reshelve.agent.start_file import Others, StartFile
from reshelve.client.client import BusyError, ServerAwayError
from reshelve.deployments.deployment_log import Pointer
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.names import require_address, require_machine
from reshelve.processes import only_one
from reshelve.protocol.model_config import ModelEntry
from reshelve.protocol.pointers import Pointers
from reshelve.store.conditions import AGENTS_PREFIX, require_conditional_writes
from reshelve.store.objects import ObjectStore, StoreRefusedError, impatient_store, object_store
from reshelve.store.signatures import trust

_SAME_RELOAD_SECONDS = 2.0
_QUICK_RELOAD_SECONDS = 0.5  # most reloads are taken in at once: a round waits so long
_NARROW_SECONDS, _EMPTY_SECONDS = 60.0, 300.0  # of absence

Entries = dict[str, ModelEntry]


def run_agent(models: str, server: str, name: str, every: float, admin: str = "") -> None:
    """Run until SIGTERM or SIGINT. `admin`: where the server takes model lists, if not at `server`: another address, or `unix:/path/of/a.sock`.

    Raises AlreadyRunningError where another agent has the directory, ConfigurationError where no key is trusted, the
    directory holds a model list that is not ours and cannot be kept, or the store is none to rely on.
    """
    require_machine(name, "agent")  # it becomes a part of a key
    require_address(server, "--server")
    if not trust().required:  # no key where one is needed: say so now, not at every version
        logger().warning("signatures are off: unsigned versions are loaded")
    directory = Path(models).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    with only_one(directory / ".agent.lock", "agent"):
        agent = Agent(directory, server, name, impatient_store(), object_store(), admin)
        try:
            agent.start()
            _check_store(agent)
            logger(agent=name).info("agent started", server=server, models=str(directory))
            while not stop.is_set():
                agent.round()
                stop.wait(every)
        finally:
            agent.close()


def _check_store(agent: Agent) -> None:
    """Raises ConfigurationError where what this host should serve cannot be known.

    A store that is away, or refuses a host that has versions to serve, may be mended while we run.
    """
    try:
        require_conditional_writes(agent.store, AGENTS_PREFIX)
    except TryAgainError as error:
        logger().warning("the store is not checked yet", problem=error.headline)
    except StoreRefusedError as error:
        if not any(agent.disk.verified.values()):
            raise
        logger().error("the store refuses this host, serving goes on", problem=str(error))


class Agent:
    """One round after the other; `round` never raises for what S3, the server or the disk do."""

    def __init__(
        self, models: Path, server: str, name: str, store: ObjectStore, copies: ObjectStore, admin: str = ""
    ) -> None:
        self.models, self.server, self.name, self.store = models, server, name, store
        self.disk = Disk(models)
        self.start_file = StartFile(models)
        self.pointers = Pointers(store, models / ".followed")
        self.copier = Copier(copies, self.disk)
        self.inspector = Inspector(self.disk)
        self.admin = ServerAdmin(admin or server)
        self.reloads = Reloads(self.admin)
        self.loads = LoadWatch(Loads(models))
        self.reporter = AgentReporter(name, server, store, self.copier, models)
        self.applied: Entries = {}
        self.waiting: Entries = {}  # of what the server was told and lost: until its files were read again
        self._must_tell = True  # what the server holds was not told by this process, or was refused in part
        self._told_others: Others = ()
        self._sent: Entries | None = None
        self._sent_at = float("-inf")
        self._away_since: float | None = None

    def start(self) -> None:
        """Verify the disk and make models.config name only what may be started from: a server may start at any time.

        Raises ConfigurationError where the directory holds a model list that is not ours and cannot be kept.
        """
        self.start_file.start()
        self.disk.start()
        self.pointers.refresh()
        if clash := sorted(self._theirs() & self.pointers.known.keys()):
            raise ConfigurationError(
                f"{self.models}/models.config has a model {clash[0]} that is not Reshelve's",
                "a ranker of that name is deployed here: rename one of them, or give the agent its own directory",
            )
        write_placeholder(self.models)
        self.loads.start(sorted(self.disk.verified))
        may_start: Entries = {}
        for name, entry in self.start_file.ours.items():
            unproven = self.loads.records.unproven(name)
            if (kept := entry.limited_to(self.disk.of(name) - unproven)) is not None:
                may_start[name] = kept
            # What is not allowed here any more goes on where the server has it, and nobody starts from it.
            has = self.disk.of(name) | self.disk.refused(name)
            if (told := entry.limited_to(has - unproven)) is not None:
                self.applied[name] = told
        self.start_file.write(may_start)

    def close(self) -> None:
        """Stop copying and close the connection; the server keeps serving."""
        self.copier.close()
        self.inspector.close()
        self.admin.close()
        self.reloads.close()

    def round(self) -> None:
        """Look, take the next step, report."""
        self.pointers.refresh()
        for ranker, pointer in self._ours().items():
            first = (pointer.stable, pointer.previous, pointer.canary)
            self.copier.want(ranker, [version for version in first if version is not None])
        self.reporter.disk_trouble = None
        with self._disk_may_refuse():
            self.start_file.refresh()
            self.loads.records.flush()
        self._take_outcome()
        observed = self._observe()
        if observed is not None:
            self.loads.learn(observed, self.pointers.known, self.reloads.under_way)
            with self._disk_may_refuse():
                self.inspector.look(observed)
            with self._disk_may_refuse():
                self._step(observed)
        elif self._away_since is not None:
            with self._disk_may_refuse():
                self.inspector.look({})  # what it starts from when it comes back
        self.loads.forget(self.pointers.known)
        with self._disk_may_refuse():
            self._write_start_file()
        with self._disk_may_refuse():
            write_wanted_labels(self.models, self._labels_to_answer())
        if observed is not None:
            with self._disk_may_refuse():
                self._clean(observed)
        if self.pointers.away is None:
            self.reporter.report(self.pointers, observed or {}, self.loads, self._theirs())

    @contextmanager
    def _disk_may_refuse(self) -> Iterator[None]:
        """What a full or broken disk refuses keeps nothing else from being done: a rollback needs no disk."""
        try:
            yield
        except OSError as error:
            if self.reporter.disk_trouble is None:
                logger(models=str(self.models)).error("the disk refuses, serving goes on", problem=str(error))
            self.reporter.disk_trouble = f"the disk: {error}"

    def _theirs(self) -> frozenset[str]:
        """Names that another team's models have here."""
        return self.start_file.names_of_others()

    def _ours(self) -> dict[str, Pointer]:
        """The pointers of the rankers that are served here."""
        theirs = self._theirs()
        return {ranker: pointer for ranker, pointer in self.pointers.known.items() if ranker not in theirs}

    def _labels_to_answer(self) -> list[str]:
        """Rankers without which callers should not be sent here. One that cannot serve here takes no other one away."""
        return [
            ranker
            for ranker, pointer in self._ours().items()
            if pointer.stable is not None
            and pointer.stable not in self.loads.failing(ranker)
            and pointer.stable not in self.copier.failures(ranker)
        ]

    def _observe(self) -> dict[str, Observed] | None:
        """What the server has of every ranker, or None where it did not say. Only silence is absence: not a refusal."""
        try:
            found = {
                name: self.admin.observe(name)
                for name in sorted(self.pointers.known.keys() | self._told_before().keys())
            }
        except TryAgainError as error:
            if isinstance(error, ServerAwayError):
                self._is_away()
            if self.reporter.server_trouble is None:
                logger(server=self.server).warning("the model server does not answer", problem=str(error))
            self.reporter.server_trouble = error.headline
            return None
        if not found:
            return {}  # nothing to ask about yet: the first ranker tells whether the server is there
        if self.reporter.server_trouble is not None:
            logger(server=self.server).info("the model server answers")
        if self._away_since is not None:
            self._away_since, self._must_tell = None, True
        self.reporter.server_trouble = None
        return found

    def _is_away(self) -> None:
        self._away_since = self._away_since or time.monotonic()
        self.loads.server_is_away()
        self.inspector.server_is_away()

    def _step(self, observed: dict[str, Observed], may_load: bool = True) -> None:
        """Tell the server what is next, unless it is still taking in what it was told."""
        if self.reloads.under_way:
            return
        if not self.pointers.complete:
            self._tell_again_what_it_lost(observed)
            return
        others = {r: e for r, e in self._told_before().items() if r not in self.pointers.known}
        wanted = self._held_or_ready(others, observed)
        begun = self._next_loads(observed) if may_load else []
        for ranker, pointer in self._ours().items():
            seen, chosen = observed[ranker], frozenset(v for name, v in begun if name == ranker)
            told = chosen | self.loads.told(ranker)
            local = self.disk.of(ranker) | self.disk.refused(ranker) & seen.available
            entry = next_entry(pointer, seen, local, self.disk.base_path(ranker), told)
            if entry is not None and not seen.known and not seen.placeholder_failed:
                entry, begun = self._placeholder_entry(ranker), [copy for copy in begun if copy[0] != ranker]
            elif entry is None and seen.placeholder and pointer.wanted & self.disk.of(ranker):
                entry = self._placeholder_entry(ranker)  # it waits for its turn
            if entry is not None:
                wanted[ranker] = entry
        due = self._must_tell or self._told_others != self.start_file.to_tell()
        due = due or any(
            must_reload(wanted.get(r), self.applied.get(r), seen) for r, seen in observed.items()
        )
        if not due or not (wanted or self.applied):  # without a model of ours there is no list to replace
            return
        try:
            self._send(wanted, begun)
        except OSError:
            if begun:  # labels can move all the same
                self._step(observed, may_load=False)
            raise

    def _tell_again_what_it_lost(self, observed: dict[str, Observed]) -> None:
        """While the pointers cannot be read: a server that came back without what it had gets that again."""
        before = self._told_before()
        if any(self.loads.told(ranker) for ranker in before):
            return
        entries = self._held_or_ready(before, observed)
        lost = [(r, v) for r, e in entries.items() for v in e.versions - observed[r].held if v != PLACEHOLDER]
        if lost:
            bare = {r: ModelEntry(e.name, e.base_path, e.versions) for r, e in entries.items()}
            labelled = {r: e for r, e in entries.items() if e.versions <= observed[r].available}
            self._send({**bare, **labelled}, lost)

    def _told_before(self) -> Entries:
        """What the server was told, with what it lost of that and is not told again yet."""
        return self.applied | self.waiting

    def _held_or_ready(self, entries: Entries, observed: dict[str, Observed]) -> Entries:
        """The entries without what the server would load of files that changed, or of files that are still being read.

        What is still being read is `waiting`; the other rankers do not wait for it.
        """
        found: Entries = {}
        self.waiting = {}
        for ranker, entry in entries.items():
            seen = observed[ranker]
            lost = entry.versions - seen.held - seen.failures.keys() - {PLACEHOLDER}
            sound = lost & self.disk.sound(ranker)
            # All are asked for at once, so that all are read: not only up to the first that is not ready.
            ready = frozenset([version for version in sorted(sound) if self.inspector.ready(ranker, version)])
            if ready != sound:
                self.waiting[ranker] = entry
            kept = entry.limited_to(entry.versions - lost | ready)
            if kept is not None:
                found[ranker] = kept
        return found

    def _next_loads(self, observed: dict[str, Observed]) -> list[tuple[str, int]]:
        ours = self._ours()
        chosen = self.loads.choose(ours, observed, {ranker: self.disk.sound(ranker) for ranker in ours})
        return [copy for copy in chosen if self.inspector.ready(*copy)]

    def _placeholder_entry(self, ranker: str) -> ModelEntry:
        """What makes the server know a ranker, so that no reload has to wait for its first load."""
        write_placeholder(self.models)  # it is loaded anew: nothing else may be in its place
        return ModelEntry(ranker, placeholder_path(self.models), frozenset({PLACEHOLDER}))

    def _send(self, wanted: Entries, begun: list[tuple[str, int]]) -> None:
        now = time.monotonic()
        if wanted == self._sent and now - self._sent_at < _SAME_RELOAD_SECONDS:
            return
        self.loads.begin(begun)  # written down before the server knows: it may not live to tell
        self._sent, self._sent_at = wanted, now
        others = self.start_file.to_tell()
        left_out = sorted(config.name for config in self.start_file.others if config not in others)
        self.reporter.others_trouble = (
            f"models.config has {', '.join(left_out)} without a base path: not told to the server"
            if left_out
            else None
        )
        self.reloads.send(wanted, others)
        self._take_outcome(_QUICK_RELOAD_SECONDS)

    def _take_outcome(self, patience: float = 0.0) -> None:
        outcome = self.reloads.take(patience)
        if outcome is None:
            return
        if outcome.error is not None:
            if self.reporter.refusal != str(outcome.error):
                logger(server=self.server).error("reload failed, trying again", problem=str(outcome.error))
            self.reporter.refusal = str(outcome.error)
            self._must_tell = True  # what a server refused may hold in part
            if isinstance(outcome.error, ServerAwayError):
                self._is_away()
            elif isinstance(outcome.error, BusyError) or (
                isinstance(outcome.error, ServerRefusedError) and not outcome.error.taken
            ):
                self.loads.refused()
                self._sent = None if isinstance(outcome.error, BusyError) else self._sent
            return
        self.reporter.refusal, self._must_tell, self._told_others = None, False, outcome.others
        self.applied = dict(outcome.entries)
        for entry in outcome.entries.values():
            logger(ranker=entry.name).info(
                "told the server", versions=sorted(entry.versions), labels=dict(entry.labels)
            )

    def _write_start_file(self) -> None:
        """The longer the server is away, the less it is asked to start from: it may be ending at each of its starts."""
        away = 0.0 if self._away_since is None else time.monotonic() - self._away_since
        found: Entries = {}
        if away <= _EMPTY_SECONDS:
            rankers = self.pointers.known.keys() | self.start_file.ours.keys() | self._told_before().keys()
            may = {r: self._may_start(r, away) for r in rankers - self._theirs()}
            found = {ranker: entry for ranker, entry in may.items() if entry is not None}
        elif self.start_file.ours:
            logger(server=self.server).error("the server does not come back: it may start without its models")
            for ranker, listed in self.start_file.ours.items():
                for version in listed.versions:
                    self.loads.records.doubt(ranker, version)
        self.start_file.write(found)

    def _may_start(self, ranker: str, away: float) -> ModelEntry | None:
        pointer = self.pointers.known.get(ranker)
        if pointer is None:  # not read yet, or damaged: it keeps what it has
            entry = self.start_file.ours.get(ranker) or self._told_before().get(ranker)
            return None if entry is None else entry.limited_to(self.disk.sound(ranker))
        proven = self.loads.records.proven(ranker) & self.disk.sound(ranker)
        return start_entry(pointer, proven, self.disk.base_path(ranker), narrow=away > _NARROW_SECONDS)

    def _clean(self, observed: dict[str, Observed]) -> None:
        for ranker, pointer in self._ours().items():
            listed = self.start_file.ours.get(
                ranker
            )  # as it is on the disk, which may have refused a newer one
            local = (self.disk.of(ranker) | self.disk.refused(ranker)) - self.copier.busy_with(ranker)
            local -= listed.versions if listed else frozenset()
            for version in removable(pointer, observed[ranker], self.applied.get(ranker), local):
                logger(ranker=ranker, version=version).info("removing a version that is no longer wanted")
                self.disk.remove(ranker, version)
