"""How far a log was followed on this machine: kept on its disk, so that a log which was put back is seen after a restart too."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reshelve.deployments.pointer import Pointer
from reshelve.logs import logger

_LOCK = threading.Lock()


class Mark(BaseModel):
    """The newest move that was verified, and the trust that it was verified with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bucket: str
    sequence: int
    digest: str
    pointer: Pointer
    since: int = 1
    """The first move that was verified: those from here on are signed."""
    trust: str = ""


class MarkFile:
    """One ranker's mark in a folder; a folder that is None keeps nothing."""

    def __init__(self, folder: Path | None, bucket: str, ranker: str) -> None:
        self.path = None if folder is None else folder / f"{ranker}.json"
        self._bucket, self._ranker = bucket, ranker

    def read(self) -> Mark | None:
        """None where nothing was followed yet, or that was another bucket's log. One that is damaged is left, with a warning."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            found = Mark.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError) as error:
            logger(ranker=self._ranker).warning(
                "how far the log was followed is not known", problem=str(error)
            )
            return None
        return found if (found.bucket, found.pointer.ranker) == (self._bucket, self._ranker) else None

    def is_there(self) -> bool:
        """Whether anything is kept."""
        return self.path is not None and self.path.is_file()

    def write(self, mark: Mark) -> None:
        """Keep it, unless a later one is kept already. A disk that refuses costs the memory alone."""
        if self.path is None:
            return
        partial = self.path.with_name(f".{self._ranker}.{os.getpid()}.partial")
        try:
            with _LOCK:
                known = self.read()
                if known is not None and known.sequence > mark.sequence:
                    return
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("w") as handle:  # processes share the place, not this name
                    handle.write(mark.model_dump_json())
                    handle.flush()
                    os.fsync(handle.fileno())
                partial.replace(self.path)
        except OSError as error:
            logger(ranker=self._ranker).warning(
                "how far the log was followed is not kept", problem=str(error)
            )
