"""Uploads of large files that can be taken up again: parts in parallel, each with a stored checksum, and what is there is kept.

The object carries the sha256 of the whole file as metadata, so that a later process knows without reading it that it
is the right one. Parts are checked on their way by CRC-32 (by MD5 where the store knows no checksums): the whole was
hashed for the manifest, and is again by whoever copies it.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reshelve.errors import DataError
from reshelve.store.errors import FAULTS, MISSING_KEY, code_of, is_mute
from reshelve.store.objects import ObjectStore

PART_BYTES = 16 * 1024 * 1024
PARALLEL = 4
_SHA256 = "sha256"


@dataclass(frozen=True)
class Upload:
    """One file on its way: where from, where to, and what it must be."""

    path: Path
    key: str
    sha256: str
    size: int


def upload(store: ObjectStore, files: list[Upload], each: Callable[[int], None] | None = None) -> int:
    """Upload files that are not there yet; bytes really sent. `each` is told of every part's bytes as it is done.

    Raises TryAgainError where the store is away: what was sent stays, and the next call goes on from there. Raises
    DataError where a file is not what its digest says.
    """
    with ThreadPoolExecutor(PARALLEL, "upload") as parts, ThreadPoolExecutor(PARALLEL, "file") as pool:
        sent = list(pool.map(lambda file: _file(store, file, parts, each), files))
    return sum(sent)


def abandon(store: ObjectStore, prefix: str) -> int:
    """Throw away the parts of uploads under `prefix` that nobody finished; how many uploads."""
    client, found = store.client, 0
    try:
        listed = client.list_multipart_uploads(Bucket=store.bucket, Prefix=prefix).get("Uploads", [])
        for one in listed:
            client.abort_multipart_upload(Bucket=store.bucket, Key=one["Key"], UploadId=one["UploadId"])
            found += 1
    except FAULTS as error:
        raise store.trouble(error, prefix, "ListMultipartUploads") from error
    return found


def _file(
    store: ObjectStore, file: Upload, pool: ThreadPoolExecutor, each: Callable[[int], None] | None
) -> int:
    try:
        if _is_there(store, file):
            return 0
        if file.size <= PART_BYTES:
            return _whole(store, file, each)
        return _in_parts(store, file, pool, each)
    except FAULTS as error:
        raise store.trouble(error, file.key, "PutObject") from error


def _is_there(store: ObjectStore, file: Upload) -> bool:
    try:
        found = store.client.head_object(Bucket=store.bucket, Key=file.key)
    except FAULTS as error:
        if code_of(error) in MISSING_KEY:
            return False
        if is_mute(error):
            store.etag(file.key)  # says why, where the store tells
        raise
    return found["ContentLength"] == file.size and found.get("Metadata", {}).get(_SHA256) == file.sha256


def _whole(store: ObjectStore, file: Upload, each: Callable[[int], None] | None) -> int:
    body = file.path.read_bytes()
    digest = hashlib.sha256(body)
    if digest.hexdigest() != file.sha256:
        raise DataError(f"{file.path} changed while it was being published")
    store.bulk.put_object(
        Bucket=store.bucket,
        Key=file.key,
        Body=body,
        Metadata={_SHA256: file.sha256},
        **({"ChecksumSHA256": _base64(digest.digest())} if store.checksums else _md5(body)),
    )
    if each:
        each(len(body))
    return len(body)


def _in_parts(
    store: ObjectStore, file: Upload, pool: ThreadPoolExecutor, each: Callable[[int], None] | None
) -> int:
    where = {"Bucket": store.bucket, "Key": file.key}
    there, where["UploadId"] = _begun(store, file)

    def part(number: int) -> tuple[dict[str, Any], int]:
        with file.path.open("rb") as handle:
            handle.seek((number - 1) * PART_BYTES)
            body = handle.read(PART_BYTES)
        crc = {"ChecksumCRC32": _base64(zlib.crc32(body).to_bytes(4, "big"))} if store.checksums else {}
        known = there.get(number)
        if known is not None and _same(known, body):
            return {"PartNumber": number, "ETag": known["ETag"], **crc}, 0
        answer = store.bulk.upload_part(**where, PartNumber=number, Body=body, **(crc or _md5(body)))
        if each:
            each(len(body))
        return {"PartNumber": number, "ETag": answer["ETag"], **crc}, len(body)

    done: list[tuple[dict[str, Any], int]] = []
    try:
        done += pool.map(part, range(1, -(-file.size // PART_BYTES) + 1))
        store.client.complete_multipart_upload(
            **where, MultipartUpload={"Parts": [found for found, _ in done]}
        )
    except FAULTS:
        # Completed, and the answer was lost; or by another process of this run, which sends the same bytes.
        if not _is_there(store, file):
            raise
    return sum(sent for _, sent in done)


def _begun(store: ObjectStore, file: Upload) -> tuple[dict[int, dict[str, Any]], str]:
    """The parts that an earlier process sent, by number, and the upload they belong to; a new one where there is none."""
    client = store.client
    listed = client.list_multipart_uploads(Bucket=store.bucket, Prefix=file.key).get("Uploads", [])
    for one in listed:
        if one["Key"] == file.key:
            pages = client.get_paginator("list_parts").paginate(
                Bucket=store.bucket, Key=file.key, UploadId=one["UploadId"]
            )
            parts = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
            return parts, str(one["UploadId"])
    checked = {"ChecksumAlgorithm": "CRC32"} if store.checksums else {}
    made = client.create_multipart_upload(
        Bucket=store.bucket, Key=file.key, Metadata={_SHA256: file.sha256}, **checked
    )
    return {}, str(made["UploadId"])


def _same(part: dict[str, Any], body: bytes) -> bool:
    """A part's entity tag is its MD5, worth its time only where there is something to resume."""
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return bool(part["Size"] == len(body) and part["ETag"].strip('"') == digest)


def _md5(body: bytes) -> dict[str, str]:
    return {"ContentMD5": _base64(hashlib.md5(body, usedforsecurity=False).digest())}


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
