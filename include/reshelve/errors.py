"""The errors of Reshelve and the exit codes that tell a scheduler whether to try again.

Every error has a headline a person understands. The exit code separates what a retry can mend from
what it cannot: 75 try again, 65 the data is bad, 78 the configuration is bad (BSD `sysexits.h`), and 73 part of
the data is bad and all else is done (`sysexits.h`: what was asked for could not be created).
"""

from __future__ import annotations

import errno
import os
from typing import Any

EXIT_DONE = 0
EXIT_DATA = 65
EXIT_PARTLY_DONE = 73
EXIT_TRY_AGAIN = 75
EXIT_CONFIGURATION = 78


class ReshelveError(Exception):
    """Base of all errors raised on purpose.

    `headline` is one sentence; `detail` may say where and what was expected.
    """

    exit_code: int = EXIT_TRY_AGAIN

    def __init__(self, headline: str, detail: str = "") -> None:
        super().__init__(headline if not detail else f"{headline}\n{detail}")
        self.headline = headline
        self.detail = detail


class DataError(ReshelveError):
    """The data is bad: never retry, a person (or the next partition) mends it."""

    exit_code = EXIT_DATA


class PartlyDoneError(DataError):
    """Part of the data is bad; the rest was worked on. Never retry: `result` is that of the rest."""

    exit_code = EXIT_PARTLY_DONE

    def __init__(self, headline: str, detail: str = "", result: dict[str, Any] | None = None) -> None:
        super().__init__(headline, detail)
        self.result = result or {}


class ConfigurationError(ReshelveError):
    """A ranker file, a rule file, a parameter or a setting is wrong: never retry."""

    exit_code = EXIT_CONFIGURATION


class MisfitError(ConfigurationError):
    """What a key of a ranker file refers to is not there, or does not fit. Who read the file adds its line.

    `key` is dotted, as in `model.base`.
    """

    def __init__(self, key: str, problem: str, detail: str = "") -> None:
        super().__init__(f"{key}: {problem}", detail)
        self.key = key


class TryAgainError(ReshelveError):
    """Something outside failed (a service away, a process killed): a retry resumes."""

    exit_code = EXIT_TRY_AGAIN


class NotDeliveredError(TryAgainError):
    """The files of a day are not there (yet)."""


class AlreadyRunningError(TryAgainError):
    """Another process of this machine holds this very piece of work."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def of_the_disk(error: BaseException) -> ReshelveError | None:
    """What the disk refused, as one of our errors: full (75), or not to be read or written (78). None where it is neither.

    Libraries hide a full disk in exceptions of their own, which keep the system's words.
    """
    seen: BaseException | None = error
    while seen is not None:
        system = seen if isinstance(seen, OSError) else OSError()
        if system.errno in _FULL or any(os.strerror(full) in str(seen) for full in _FULL):
            place = f" at {system.filename}" if system.filename else ""
            return TryAgainError(
                f"the disk is full{place}", f"{seen}\nmake room: the same command then goes on"
            )
        if system.errno in _NOT_ALLOWED and system.filename:
            return ConfigurationError(
                f"{system.filename}: {system.strerror}",
                "expected a path that this user can read and write; local state is in RESHELVE_HOME",
            )
        seen = seen.__cause__
    return None
