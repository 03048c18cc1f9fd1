"""One conditional write. Each carries a mark of its own, by which a write whose answer was lost is known again.

A store that was asked twice (boto3 and proxies ask again where no answer came) refuses the second time what it did the
first: the mark on the object tells whether the winner is this very write. Equal bytes would not: two writers may have them.
"""

from __future__ import annotations

import random
import time
import uuid
from typing import Any, BinaryIO

from reshelve.errors import TryAgainError
from reshelve.store.errors import (
    FAULTS,
    MISSING,
    PRECONDITION,
    PreconditionFailedError,
    code_of,
    entity_tag,
    our_error,
)

MARK = "write"  # x-amz-meta-write
_TRIES = 7
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds; five in all at most


def put_if(
    client: Any,
    where: dict[str, str],
    body: bytes | BinaryIO,
    condition: dict[str, str],
    extra: dict[str, Any],
) -> str:
    """Write `body`, or a file from its beginning, where (`Bucket`, `Key`) the condition holds, and return the entity tag.

    Raises PreconditionFailedError where it does not hold, what boto3 raises otherwise. 409 says that another writer is at
    it: neither won yet, so it is tried again.
    """
    mark = uuid.uuid4().hex
    for attempt in range(_TRIES):
        if not isinstance(body, bytes):
            body.seek(0)
        try:
            answer = client.put_object(**where, Body=body, Metadata={MARK: mark}, **condition, **extra)
            return entity_tag(answer, where["Bucket"], where["Key"], "PutObject")
        except FAULTS as error:
            if _conflict(error) and attempt + 1 < _TRIES:
                pause(attempt)
                continue
            lost = code_of(error) in PRECONDITION | MISSING
            if not lost and not may_pass(error):
                raise
            if (etag := written_by(client, where, mark)) is not None:
                return etag
            if lost:
                raise PreconditionFailedError(f"s3://{where['Bucket']}/{where['Key']}") from error
            raise
    raise AssertionError("the last try ends the loop")


def pause(attempt: int) -> None:
    """Longer each time, and never as long as the neighbour's."""
    time.sleep(random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))


def may_pass(error: BaseException) -> bool:
    return isinstance(our_error(error, "", "", "", checksums=False), TryAgainError)


def _conflict(error: BaseException) -> bool:
    answer = getattr(error, "response", None) or {}
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 409 or code_of(error) == "409"


def written_by(client: Any, where: dict[str, str], mark: str) -> str | None:
    """The object's entity tag where it has this mark; None where it has not, is not there or may not be read."""
    try:
        found = client.head_object(**where)
    except FAULTS as error:
        if may_pass(error):
            raise  # nobody knows yet who has won
        return None
    return str(found["ETag"]) if found.get("Metadata", {}).get(MARK) == mark else None
