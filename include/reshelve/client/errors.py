"""What asking may raise, by what the caller does about it:

    ReshelveError                 has a `headline` and a `detail`
    ├── TryAgainError             show something that needs no answer; the next request may well be answered
    │   ├── BusyError             … more threads or servers: every try was refused because all threads were taken
    │   ├── TooSlowError          … a longer `timeout`, or a quicker server: no answer within it
    │   ├── ServerAwayError       … look at the address: nothing listens there
    │   ├── NothingServesError    … look at the release: servers answer, and none has a version of this ranker
    │   └── VersionFailedError    … look at the server's log: an error of its own; every server was asked once
    └── ConfigurationError        mend what is sent or set: the same again gets the same error
        └── RequestRefusedError   … the inputs: a wrong name, shape, type or signature

An input that is neither text nor a number is a TypeError. Making a Caller raises ConfigurationError without a server, or
with a `log_share` that has no store or no key.
"""

from __future__ import annotations

from reshelve.errors import ConfigurationError, ReshelveError, TryAgainError
from reshelve.protocol.server_errors import (
    BusyError,
    NothingServesError,
    RequestRefusedError,
    ServerAwayError,
    TooSlowError,
    VersionFailedError,
)

__all__ = [
    "BusyError",
    "ConfigurationError",
    "NothingServesError",
    "RequestRefusedError",
    "ReshelveError",
    "ServerAwayError",
    "TooSlowError",
    "TryAgainError",
    "VersionFailedError",
]
