"""Files that become objects once, without ever being whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reshelve.store.completions import complete_new
from reshelve.store.conditions import check_prefix, completes_conditionally, require_conditional_writes
from reshelve.store.errors import FAULTS
from reshelve.store.objects import ObjectStore
from reshelve.store.puts import put_if

PART_BYTES = 16 * 1024 * 1024


def put_new_file(store: ObjectStore, path: Path, key: str) -> str:
    """Upload a file where no object is `key`, and return the entity tag: in parts where it is large.

    Raises PreconditionFailedError where there is one, and as `ObjectStore.put`. To a store that does not mind the condition
    where parts are put together it goes in one piece, straight from the disk: at most 5 GiB, as S3 has it.
    """
    prefix = check_prefix(key)
    require_conditional_writes(store, prefix)
    if path.stat().st_size > PART_BYTES and completes_conditionally(store, prefix):
        return complete_new(store, key, _parts(path))
    try:
        with path.open("rb") as body:
            where = {"Bucket": store.bucket, "Key": key}
            return put_if(store.client, where, body, {"IfNoneMatch": "*"}, {})
    except FAULTS as error:
        raise store.trouble(error, key, "PutObject") from error


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while body := file.read(PART_BYTES):
            yield body
