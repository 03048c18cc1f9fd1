"""The processes of the platform, written down so that a later command finds, watches and stops exactly those."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from reshelve.files import write_whole
from reshelve.processes import stop_group


class ProcessStart(BaseModel):
    """When a process began, by no clock that can be set: a pid that was reused has another start."""

    model_config = ConfigDict(frozen=True)

    ticks: int  # since the machine booted
    boot: str  # the kernel's name for that boot

    @classmethod
    def of(cls, pid: int) -> ProcessStart:
        """The start of a process that lives, or waits for its parent. Raises psutil.NoSuchProcess."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError) as error:
            raise psutil.NoSuchProcess(pid) from error
        after_the_name = stat.rpartition(")")[2].split()  # the name may hold spaces and brackets
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(ticks=int(after_the_name[19]), boot=boot)  # field 22 of proc_pid_stat(5)


class Service(BaseModel):
    """One process that was started, the leader of its own group."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created: float  # seconds since 1970, for people: it moves when somebody sets the clock
    log: Path
    address: str = ""
    start: ProcessStart | None = None  # None: written down by a version that knew `created` alone

    @classmethod
    def of(cls, name: str, process: subprocess.Popen[bytes], log: Path, address: str = "") -> Service:
        """The record of a process that was just started. Raises psutil.NoSuchProcess if it ended at once."""
        return cls(
            name=name,
            pid=process.pid,
            created=psutil.Process(process.pid).create_time(),
            log=log,
            address=address,
            start=ProcessStart.of(process.pid),
        )

    def lives(self) -> bool:
        """Whether this very process runs (not a zombie, not another process with its number)."""
        process = self._process()
        if process is None:
            return False
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return False
        _reap(self.pid)
        return False

    def stop(self, grace_seconds: float = 10) -> None:
        """Stop the process and its group, also what a dead leader left behind. Another's process is left alone."""
        if self._process() is not None or not psutil.pid_exists(self.pid):
            stop_group(self.pid, grace_seconds)
            _reap(self.pid)

    def processes(self) -> list[psutil.Process]:
        """The process and all its descendants that live now."""
        leader = self._process()
        if leader is None:
            return []
        try:
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @property
    def since(self) -> str:
        """When it was started, ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.created, UTC).isoformat(timespec="seconds")

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            if self.start is not None:
                same = ProcessStart.of(self.pid) == self.start
            else:
                same = abs(process.create_time() - self.created) < 0.5
            return process if same else None
        except psutil.NoSuchProcess:
            return None


class PlatformState(BaseModel):
    """`<home>/platform.json`: what was started."""

    model_config = ConfigDict(frozen=True)

    services: dict[str, Service] = {}

    @classmethod
    def read(cls, home: Path) -> PlatformState:
        """The state of the platform under `home`; empty where nothing was started."""
        path = home / "platform.json"
        return cls.model_validate_json(path.read_text()) if path.is_file() else cls()

    def write(self, home: Path) -> None:
        """Keep it, whole or not at all."""
        write_whole(home / "platform.json", self.model_dump_json(indent=1))

    def with_service(self, service: Service) -> PlatformState:
        """A copy that knows `service`."""
        return PlatformState(services={**self.services, service.name: service})


def memory_mib(service: Service) -> int:
    """Proportional memory of a service and its descendants, in MiB: shared pages are counted once."""
    total = 0
    for process in service.processes():
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended, or is not ours to read, between the listing and the look
    return total // 2**20


def log_tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message."""
    if not path.is_file():
        return f"(no log at {path})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _reap(pid: int) -> None:
    """Take a dead child's exit status, if it is our child."""
    for _ in range(10):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return
        time.sleep(0.02)
