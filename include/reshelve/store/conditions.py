"""Proof that a store keeps its conditions: everything that exists once, or moves by compare-and-swap, stands on them.

Some stores take `If-None-Match` and `If-Match` and do not look at them; then every one of several writers is told that it
won. So each process asks once, before its first conditional write: one small object is written, and two writes that must
be refused are tried. The object has a name of its own, so that any number of processes may ask at once, and lies where
the process writes anyway, so that it needs no right of its own. It is deleted again.
"""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from reshelve.errors import ConfigurationError
from reshelve.logs import logger
from reshelve.store.completions import complete_new
from reshelve.store.errors import PAGE, PreconditionFailedError, StoreRefusedError

if TYPE_CHECKING:
    from reshelve.store.objects import ObjectStore

CHECKS_PREFIX = "deployments/.check/"
AGENTS_PREFIX = f"{CHECKS_PREFIX}agents/"
"""Where an agent checks: inside `deployments/*/agents/`, the only keys that it may write."""

_CHECK = ".check-"  # no object of ours is called so
_KILLED = timedelta(days=1)

_proven: set[tuple[str, str]] = set()
_of_parts: dict[tuple[str, str], bool] = {}
_one_at_a_time = threading.Lock()


def require_conditional_writes(store: ObjectStore, prefix: str) -> None:
    """Prove once per process, store and bucket that conditional writes hold. `prefix`: below it this process may write.

    Raises ConfigurationError, naming the bucket and what the store did, where they do not hold; StoreRefusedError where it
    refuses the check itself; TryAgainError where it is away: nothing is proven then, and the next call asks again.
    """
    where = (str(store.client.meta.endpoint_url), store.bucket)
    with _one_at_a_time:
        if where not in _proven:
            _prove(store, f"{prefix}{_CHECK}{uuid.uuid4().hex}")
            _proven.add(where)


def completes_conditionally(store: ObjectStore, prefix: str) -> bool:
    """Whether this store minds `If-None-Match: *` where an upload in parts is completed; asked once, as above.

    S3 does; a store that knows the condition of a whole object alone may not.
    """
    where = (str(store.client.meta.endpoint_url), store.bucket)
    with _one_at_a_time:
        if where not in _of_parts:
            _of_parts[where] = _minds_parts(store, f"{prefix}{_CHECK}{uuid.uuid4().hex}")
        return _of_parts[where]


def check_prefix(key: str) -> str:
    """Where the writer of `key` checks: two folders from the top, as in `models/<ranker>/`, where nobody lists objects."""
    folders = key.split("/")[:-1][:2]
    return "".join(f"{folder}/" for folder in folders)


def leftovers(store: ObjectStore, prefix: str) -> list[str]:
    """Objects of checks that were killed, or that might not delete, a day ago or longer."""
    keys = [key for key, _ in store.list(f"{prefix}{_CHECK}")]
    now = datetime.now(UTC)
    return [key for key in keys if now - (store.last_modified(key) or now) > _KILLED]


def _prove(store: ObjectStore, key: str) -> None:
    store.get(key)  # raises where the bucket is missing: some stores make one for whoever writes
    try:
        first = _put(store, key, b"1", "If-None-Match: *", if_absent=True)
        if first is None:
            raise _broken(store, "If-None-Match: *", "refused an object that was not there")
        if _put(store, key, b"2", "If-None-Match: *", if_absent=True) is not None:
            raise _broken(store, "If-None-Match: *", "wrote over an object that was there")
        if _put(store, key, b"3", "If-Match", if_match=first) is None:
            raise _broken(store, "If-Match", "refused the entity tag that it had just given")
        if _put(store, key, b"4", "If-Match", if_match=first) is not None:
            raise _broken(store, "If-Match", "took the entity tag of an object that is no more")
    finally:
        _clean_up(store, key)


def _minds_parts(store: ObjectStore, key: str) -> bool:
    store.put_unproven(key, b"1")
    try:
        complete_new(store, key, [b"2"])
        return False
    except PreconditionFailedError:
        return True
    except StoreRefusedError:  # it knows no such header here
        return False
    finally:
        _clean_up(store, key)


def _put(store: ObjectStore, key: str, body: bytes, header: str, **condition: Any) -> str | None:
    """The entity tag; None where the condition did not hold."""
    try:
        return store.put_unproven(key, body, **condition)
    except PreconditionFailedError:
        return None
    except StoreRefusedError as error:
        # Is the condition refused, or would any write be? The second one says so itself.
        store.put_unproven(key, body)
        raise _broken(store, header, f"refused to write ({error.headline})") from error


def _broken(store: ObjectStore, header: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"s3://{store.bucket} does not support conditional writes: with {header} it {what}",
        f"two concurrent writers would both succeed, so nothing is written; what a store needs: {PAGE}",
    )


def _clean_up(store: ObjectStore, key: str) -> None:
    """Who may write may not always delete: what stays is one byte, and housekeeping takes it."""
    for error in store.delete_each([key]).values():
        logger(bucket=store.bucket).info("the check's object stays", key=key, problem=error.headline)
