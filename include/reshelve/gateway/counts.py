"""What the edge reports of each request, counted by version as the client library does."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reshelve.gateway.configuration import AGAIN
from reshelve.gateway.inner import IN_PLACE, SECOND_OPINION
from reshelve.gateway.tokens import TokenName
from reshelve.logs import logger
from reshelve.names import RankerName
from reshelve.protocol.traffic import BUSY, Meter

_BUSY = ("429", "503")
_ABSENT = "404"


class _Line(BaseModel):
    """One request. `told`: `<sequence> <version> <version>…|<their status>|<their seconds>`, of the last try.

    `token`: the name of the caller's; "" where an edge of an earlier release, which lives on, does not say it.
    """

    model_config = ConfigDict(extra="forbid")

    ranker: RankerName
    token: TokenName | Literal[""] = ""
    status: str = Field(pattern=r"^[0-9, :-]{1,200}$")
    told: str = Field(pattern=r"^[0-9]+( [?~]?[0-9]+)+\|[0-9, :-]*\|[0-9.,  :-]*$")


@dataclass(frozen=True)
class Attempt:
    """One version that was asked. Version 0: the label, whichever version has it."""

    version: int
    opinion: bool
    status: str
    seconds: float

    @property
    def rejected(self) -> bool:
        """The request does not fit, or the version thinks so."""
        return self.status.startswith("4") and self.status not in (_ABSENT, "408", "429", "499")


class Counter:
    """Counts, one datagram for each request, in a thread of its own. Use it in a `with`.

    Each token is a client of its own: what only one caller's requests meet is not held against a version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meters: dict[tuple[str, str], Meter] = {}
        self.seen = 0
        self._name = f"gateway-{os.uname().nodename}-{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._listen, name="traffic", daemon=True)

    def __enter__(self) -> Counter:
        self.path.unlink(missing_ok=True)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.5)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join(timeout=5)

    def _listen(self) -> None:
        while True:
            try:
                line = self._socket.recv(65536).decode(errors="replace")
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            try:
                self.count(line[line.index("{") :])
            except (ValueError, ValidationError) as error:
                logger(part="gateway").warning("nginx said something strange", problem=str(error))

    def count(self, line: str) -> None:
        """One request. Raises ValueError for a line that is none of ours.

        An answer counts for the version that gave it. What one version rejects and another one answers is that version's
        error; what nobody answers is `rejected`: the caller's own. 404 says that the pointer moved. A busy server's
        refusals are counted beside the answer, or beside the error where the tries were used up.
        """
        said = _Line.model_validate(json.loads(line))
        asked, statuses, seconds = said.told.split("|")
        sequence, *versions = asked.split(" ")
        found = list(attempts(versions, statuses, seconds))
        client = f"{self._name}-{said.token}" if said.token else self._name
        meter = self.meters.setdefault((said.ranker, client), Meter(client))
        tries = said.status.replace(" : ", ", ").split(", ")
        refusals = tries.count(str(AGAIN)) + sum(attempt.status == "429" for attempt in found)
        outcomes = [_Outcome.of(attempt, found) for attempt in found]
        if tries[-1] == str(AGAIN):  # that try's own refusal is among its attempts
            absent = bool(found) and not any(attempt.status in _BUSY for attempt in found)
            refusals = 0 if absent else tries.count(str(AGAIN))
            outcomes = [_Outcome(_meant(versions), error="NothingServesError" if absent else BUSY)]
        counted = [outcome for outcome in outcomes if outcome is not None and outcome.version]
        for outcome in counted:
            meter.add(
                int(sequence), outcome.version, outcome.milliseconds, outcome.error, rejected=outcome.rejected,
                refusals=refusals if outcome is counted[-1] else 0,
            )  # fmt: skip
        self.seen += 1


@dataclass(frozen=True)
class _Outcome:
    """What one attempt counts as."""

    version: int
    milliseconds: float | None = None
    error: str | None = None
    rejected: str | None = None

    @classmethod
    def of(cls, attempt: Attempt, beside: Sequence[Attempt]) -> _Outcome | None:
        """None for what says nothing of a version."""
        if attempt.status == "200":
            return cls(attempt.version, attempt.seconds * 1000)
        if attempt.opinion or attempt.status in (_ABSENT, "429"):
            return None
        if attempt.rejected and not any(one.status == "200" for one in beside):
            return cls(attempt.version, rejected=f"HTTP {attempt.status}")
        return cls(attempt.version, error=f"HTTP {attempt.status}")


def _meant(versions: Sequence[str]) -> int:
    """The version that customers were to get: of the stable one and the canary, the last that was asked."""
    return next((int(version) for version in reversed(versions) if version.isdecimal()), 0)


def attempts(versions: Sequence[str], statuses: str, seconds: str) -> Iterator[Attempt]:
    """nginx's `$upstream_status` and `$upstream_header_time` beside the versions that were asked for.

    Each version is a group of servers, separated by colons; within a group, by commas: the last server's status counts,
    and the time of those that answered. Nothing for a caller that went away before any server answered.
    """
    for version, group, times in zip(versions, _groups(statuses), _groups(seconds), strict=False):
        if group[-1] not in ("-", ""):
            spent = sum(float(time) for time in times if time not in ("-", ""))
            yield Attempt(
                int(version.lstrip(SECOND_OPINION + IN_PLACE)),
                version.startswith(SECOND_OPINION),
                group[-1],
                spent,
            )


def _groups(text: str) -> Sequence[Sequence[str]]:
    return [group.split(", ") for group in text.split(" : ")]
