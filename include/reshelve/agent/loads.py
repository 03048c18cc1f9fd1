"""What became of each load on this host, kept beside the version: `<models>/<ranker>/.load-<version>.json`.

A model server that ends while it loads a version says nothing. So it is written down before the server is told of a
version, and after that version has answered: whoever starts next, agent or server, knows what this server could load
and what it was loading when it ended.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reshelve.files import write_whole
from reshelve.logs import logger

_NAME = re.compile(r"\.load-([1-9][0-9]{0,10})\.json")
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0  # seconds before a version that ended the server may try it again


class LoadRecord(BaseModel):
    """One version on one host."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    proven: bool = Field(
        False, description="It was AVAILABLE here, and nothing happened since that doubts it."
    )
    begun: int = Field(0, ge=0, description="Loads that the server was told of and that have not ended.")
    deaths: int = Field(0, ge=0, description="How often the server ended while it loaded this version alone.")
    suspect: bool = Field(False, description="The server ended while it loaded this version and others.")
    at: float = Field(0.0, description="When the last death was seen, seconds since the epoch.")
    sequence: int = Field(0, ge=0, description="The pointer's move that was known then.")

    def pause_is_over(self) -> bool:
        """Whether a version that customers need may be tried again: after 10, 20, 40 s … one hour."""
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self.deaths - 1))
        return not self.deaths or not 0 <= time.time() - self.at <= pause  # a clock may be set back


class Loads:
    """The records of one models directory.

    What cannot be written is known here all the same, and written when the disk takes it again; only `begin` has to be on
    the disk before the server is told.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._records: dict[tuple[str, int], LoadRecord] = {}
        self._unwritten: set[tuple[str, int]] = set()

    def start(self, rankers: list[str]) -> None:
        """Read what an earlier agent has written. A damaged record is no record: the version has to prove itself."""
        for ranker in rankers:
            for path in sorted((self._models / ranker).glob(".load-*.json")):
                if not (number := _NAME.fullmatch(path.name)):
                    continue
                try:
                    self._records[ranker, int(number[1])] = LoadRecord.model_validate_json(path.read_bytes())
                except ValidationError as error:
                    logger(ranker=ranker).warning(
                        "a load's record is damaged", path=str(path), problem=str(error)
                    )

    def of(self, ranker: str, version: int) -> LoadRecord:
        """What is known of a version; nothing, where it was never loaded here."""
        return self._records.get((ranker, version), LoadRecord())  # type: ignore[call-arg]

    def proven(self, ranker: str) -> frozenset[int]:
        """Versions that a server here may start from: one that is being loaded again may be the one that ends it."""
        return frozenset(
            v
            for (name, v), record in self._records.items()
            if name == ranker and record.proven and not record.begun
        )

    def unproven(self, ranker: str) -> frozenset[int]:
        """Versions of which something else is known than that they were AVAILABLE."""
        return frozenset(v for (name, v), record in self._records.items() if name == ranker) - self.proven(
            ranker
        )

    def items(self) -> list[tuple[tuple[str, int], LoadRecord]]:
        """All of them."""
        return list(self._records.items())

    def under_way(self) -> list[tuple[str, int]]:
        """Versions whose load was begun and has not ended, as far as anybody wrote down."""
        return [copy for copy, record in self._records.items() if record.begun]

    def begin(self, ranker: str, version: int) -> None:
        """The server is about to be told of it. Raises OSError where that cannot be written down."""
        record = self.of(ranker, version)
        fresh = record.model_copy(update={"begun": record.begun + 1})
        self._store(ranker, version, fresh)
        self._records[ranker, version] = fresh

    def take_back(self, ranker: str, version: int) -> None:
        """The server refused to be told."""
        record = self.of(ranker, version)
        self._write(ranker, version, record.model_copy(update={"begun": max(0, record.begun - 1)}))

    def available(self, ranker: str, version: int) -> None:
        """It answers here."""
        self._write(ranker, version, LoadRecord(proven=True))  # type: ignore[call-arg]

    def failed(self, ranker: str, version: int) -> None:
        """Its load ended with an error, and the server lives."""
        self._write(
            ranker, version, self.of(ranker, version).model_copy(update={"begun": 0, "proven": False})
        )

    def died(self, ranker: str, version: int, *, alone: bool, sequence: int) -> None:
        """The server ended while it loaded it; `alone`: and nothing else. `sequence`: the pointer's newest move."""
        record = self.of(ranker, version)
        now = {
            "proven": False,
            "begun": 0,
            "suspect": not alone,
            "deaths": record.deaths + alone,
            "at": time.time(),
            "sequence": sequence,
        }
        self._write(ranker, version, record.model_copy(update=now))

    def offered(self, ranker: str, version: int, sequence: int) -> None:
        """It is being released by the pointer's move `sequence`: what happened before that was another try."""
        record = self.of(ranker, version)
        if record.sequence < sequence and (record.deaths or record.suspect):
            self._write(ranker, version, record.model_copy(update={"deaths": 0, "suspect": False}))

    def doubt(self, ranker: str, version: int) -> None:
        """It was proven, but a server that was to start from it has not come back."""
        self._write(ranker, version, self.of(ranker, version).model_copy(update={"proven": False}))

    def forget(self, ranker: str, wanted: frozenset[int]) -> None:
        """Keep only the records of versions that are wanted: another release of a version is another try."""
        for name, version in [c for c in self._records if c[0] == ranker and c[1] not in wanted]:
            del self._records[name, version]
            self._unwritten.discard((name, version))
            with contextlib.suppress(OSError):  # what stays is forgotten again by the next agent
                self._path(name, version).unlink(missing_ok=True)

    def flush(self) -> None:
        """Write what the disk did not take before. Raises OSError where it still does not."""
        for copy in sorted(self._unwritten):
            self._store(*copy, self._records[copy])
            self._unwritten.discard(copy)

    def _write(self, ranker: str, version: int, record: LoadRecord) -> None:
        if record != self._records.get((ranker, version)):
            self._records[ranker, version] = record
            self._unwritten.add((ranker, version))
        with contextlib.suppress(OSError):  # flush says so
            self.flush()

    def _store(self, ranker: str, version: int, record: LoadRecord) -> None:
        path = self._path(ranker, version)
        write_whole(path, record.model_dump_json(), durable=True)

    def _path(self, ranker: str, version: int) -> Path:
        return self._models / ranker / f".load-{version}.json"
