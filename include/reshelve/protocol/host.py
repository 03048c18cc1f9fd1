"""What a serving host has left: the model server's memory, the machine's, and the disk's that holds the versions."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

_SEARCH_SECONDS = 60.0  # between two searches for a server that was not found


class HostUse(BaseModel):
    """None where it cannot be seen from here: a server in a container of its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    server_memory_bytes: int | None = Field(None, description="Resident memory of the model server.")
    memory_share: float | None = Field(None, description="Share of the machine's memory that is in use.")
    disk_share: float | None = Field(None, description="Share of the disk with the versions that is in use.")


class HostWatch:
    """Looks at the host of the model server at a gRPC address."""

    def __init__(self, server: str, models: Path) -> None:
        self._port = int(server.rpartition(":")[2]) if server.rpartition(":")[2].isdigit() else 0
        self._models = models
        self._process: psutil.Process | None = None
        self._searched_at = float("-inf")

    def look(self) -> HostUse:
        """Never raises: what cannot be seen is None."""
        try:
            disk = psutil.disk_usage(str(self._models)).percent / 100
        except OSError:
            disk = None
        return HostUse(
            server_memory_bytes=self._memory(),
            memory_share=round(psutil.virtual_memory().percent / 100, 3),
            disk_share=None if disk is None else round(disk, 3),
        )

    def _memory(self) -> int | None:
        try:
            if self._process is None or not self._process.is_running():
                self._process = self._search()
            return None if self._process is None else int(self._process.memory_info().rss)
        except psutil.Error:
            self._process = None
            return None

    def _search(self) -> psutil.Process | None:
        """The process that listens on the server's port. Other users' sockets may be hidden from us."""
        if time.monotonic() - self._searched_at < _SEARCH_SECONDS or not self._port:
            return None
        self._searched_at = time.monotonic()
        for found in psutil.net_connections(kind="tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr.port == self._port and found.pid:
                return psutil.Process(found.pid)
        return None
