"""A model server whose threads are all taken refuses a call and does nothing: it is made again, until its deadline.

TensorFlow Serving answers RESOURCE_EXHAUSTED at once then, to Predict and to its administration alike. Such an answer
says nothing of a version, and nothing of whether the server lives.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25  # seconds
_TOO_LARGE = "larger than max"  # gRPC's word for a message over the limit, under the same code


def pauses() -> Iterator[float]:
    """Seconds to wait before the next tries: full jitter below a bound that doubles from 5 to 250 ms."""
    bound = _FIRST_PAUSE
    while True:
        yield random.uniform(0, bound)
        bound = min(2 * bound, _LONGEST_PAUSE)


def is_busy(error: grpc.RpcError) -> bool:
    """Whether the server refused the call because no thread (or memory) is free, without beginning it."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE not in str(error.details())


def call_when_free(
    call: Callable[..., Any],
    request: Any,
    timeout: float,
    refused: Callable[[], None] | None = None,
    *,
    patience: float | None = None,
    longest_pause: float = _LONGEST_PAUSE,
) -> Any:
    """What `call(request)` answers within `timeout` seconds, refusals for want of a thread tried again.

    The pauses double from 5 to 250 ms (`longest_pause`), each with full jitter (Brooker 2015, "Exponential Backoff and
    Jitter"), so that callers refused together do not come back together. `refused` is told of every refusal; they are
    tried again for `patience` seconds, the whole time by default. Raises the grpc.RpcError of the last try.
    """
    deadline = time.monotonic() + timeout
    give_up = deadline if patience is None else min(deadline, time.monotonic() + patience)
    pause = _FIRST_PAUSE
    while True:
        try:
            return call(request, timeout=max(deadline - time.monotonic(), 0.001))
        except grpc.RpcError as error:
            if not is_busy(error):
                raise
            if refused is not None:
                refused()
            wait = random.uniform(0, pause)
            if time.monotonic() + wait >= give_up:
                raise
            time.sleep(wait)
            pause = min(2 * pause, longest_pause)
