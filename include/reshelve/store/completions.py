"""One upload in parts that becomes an object only where there is none of its key, as `puts` does it for a whole body."""

from __future__ import annotations

import base64
import uuid
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reshelve.logs import logger
from reshelve.store.errors import (
    FAULTS,
    MISSING,
    PRECONDITION,
    PreconditionFailedError,
    code_of,
    entity_tag,
)
from reshelve.store.puts import MARK, may_pass, written_by

if TYPE_CHECKING:
    from reshelve.store.objects import ObjectStore

_NO_UPLOAD = {"NoSuchUpload"}


def complete_new(store: ObjectStore, key: str, parts: Iterable[bytes]) -> str:
    """Upload `parts`, one in memory at a time, and return the entity tag. All but the last have at least 5 MiB.

    Raises PreconditionFailedError where the object is there; what was sent is thrown away then, and after any other error.
    """
    try:
        return _completed(store, {"Bucket": store.bucket, "Key": key}, parts)
    except FAULTS as error:
        raise store.trouble(error, key, "CompleteMultipartUpload") from error


def _completed(store: ObjectStore, where: dict[str, str], parts: Iterable[bytes]) -> str:
    checked = {"ChecksumAlgorithm": "CRC32"} if store.checksums else {}
    mark = uuid.uuid4().hex
    made = store.client.create_multipart_upload(**where, Metadata={MARK: mark}, **checked)
    begun = {**where, "UploadId": str(made["UploadId"])}
    try:
        sent = [_part(store, begun, number, body) for number, body in enumerate(parts, 1)]
        answer = store.client.complete_multipart_upload(
            **begun, MultipartUpload={"Parts": sent}, IfNoneMatch="*"
        )
        return entity_tag(answer, store.bucket, where["Key"], "CompleteMultipartUpload")
    except FAULTS as error:
        _abandon(store, begun)
        # Its answer may be lost; asked again, the store finds an object there, or no upload: ours, where it has the mark.
        refused = code_of(error) in PRECONDITION
        lost = refused or code_of(error) in MISSING | _NO_UPLOAD or may_pass(error)
        if lost and (etag := written_by(store.client, where, mark)) is not None:
            return etag
        if refused:
            raise PreconditionFailedError(f"s3://{store.bucket}/{where['Key']}") from error
        raise


def _part(store: ObjectStore, begun: dict[str, str], number: int, body: bytes) -> dict[str, Any]:
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    checked = {"ChecksumCRC32": crc} if store.checksums else {}
    answer = store.bulk.upload_part(**begun, PartNumber=number, Body=body, **checked)
    return {"PartNumber": number, "ETag": answer["ETag"], **checked}


def _abandon(store: ObjectStore, begun: dict[str, str]) -> None:
    try:
        store.client.abort_multipart_upload(**begun)
    except FAULTS as error:
        if code_of(error) not in _NO_UPLOAD:  # a lifecycle rule takes what stays
            logger(bucket=store.bucket).info(
                "an unfinished upload stays", key=begun["Key"], problem=code_of(error)
            )
