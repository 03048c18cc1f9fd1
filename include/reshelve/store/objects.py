"""S3 as this project uses it: whole objects, conditional writes, directories, paging.

Conditional writes (`If-None-Match: *`, `If-Match`) carry the two promises of the release machine: a
version exists once, and the pointer moves by compare-and-swap. `store.conditions` proves that a store keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from reshelve.errors import ReshelveError, TryAgainError
from reshelve.files import whole
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.settings import settings
from reshelve.store import clients
from reshelve.store.conditions import check_prefix, require_conditional_writes
from reshelve.store.deletions import Deletions, Left, what_stayed
from reshelve.store.errors import (
    FAULTS,
    MISSING,
    MISSING_BUCKET,
    PreconditionFailedError,
    StoreRefusedError,
    code_of,
    entity_tag,
    is_mute,
    our_error,
    require_s3,
)
from reshelve.store.json_documents import json_value
from reshelve.store.puts import put_if

__all__ = [
    "Object",
    "ObjectStore",
    "PreconditionFailedError",
    "StoreRefusedError",
    "impatient_store",
    "object_store",
]

Keys = list[str]
Paths = list[Path]

_MIB = 1024 * 1024
_TRANSFER = {"multipart_threshold": 32 * _MIB, "multipart_chunksize": 32 * _MIB, "max_concurrency": 4}
_ALREADY_OURS = {"BucketAlreadyOwnedByYou"}


@dataclass(frozen=True)
class Object:
    """One object's bytes, its entity tag, and its age in seconds by the store's own clock."""

    body: bytes
    etag: str
    age: float = 0.0

    @property
    def stored_at(self) -> datetime:
        """When it was written, by the store's own clock: nobody who may write to the bucket can date it back."""
        return datetime.now(UTC) - timedelta(seconds=self.age)


class ObjectStore:
    """One bucket. Keys are relative to it and never begin with a slash.

    Every method raises TryAgainError where the store is away or busy, StoreRefusedError (a ConfigurationError) where it
    refuses: a wrong key, a right or a bucket that is missing, a call that it does not know.
    """

    def __init__(self, bucket: str, client: Any = None) -> None:
        self.bucket = bucket
        self._client = client or clients.client(clients.patient(), bucket)
        self._given = client is not None
        self._deletions = Deletions(self._client, bucket)

    @property
    def client(self) -> Any:
        """boto3's client, for what needs more than whole objects (`store.uploads`)."""
        return self._client

    @property
    def checksums(self) -> bool:
        """Whether requests may carry checksum headers; false where AWS_REQUEST_CHECKSUM_CALCULATION says so."""
        return clients.sends_checksums(self._client)

    @cached_property
    def bulk(self) -> Any:
        """A client for large bodies that come with a checksum of their own.

        Over plain HTTP boto3 would hash each of them once more for the request's signature, at the cost of a third of an
        upload; over HTTPS it leaves that out by itself. Without checksums the signature is all that there is.
        """
        if self._given or not self.checksums:
            return self._client
        return clients.client(clients.patient({"payload_signing_enabled": False}), self.bucket)

    def uri(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{key}"

    def key(self, uri: str) -> str:
        """The key of one of this bucket's URIs. Raises ValueError for another bucket's."""
        prefix = f"s3://{self.bucket}/"
        if not uri.startswith(prefix):
            raise ValueError(f"{uri} is not in {prefix}")
        return uri[len(prefix) :]

    def create_bucket(self) -> None:
        """Make the bucket where it is missing."""
        try:  # not HEAD, whose answers have no words
            self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
            return
        except FAULTS as error:
            if code_of(error) not in MISSING_BUCKET:
                raise self.trouble(error, "", "ListObjectsV2") from error
        try:
            self._client.create_bucket(Bucket=self.bucket)
        except FAULTS as error:
            if code_of(error) not in _ALREADY_OURS:  # another process was faster
                raise self.trouble(error, "", "CreateBucket") from error

    def get(self, key: str) -> Object | None:
        """The object, or None where there is none."""
        return self.get_if_changed(key, None)[0]

    def get_if_changed(self, key: str, etag: str | None) -> tuple[Object | None, bool]:
        """One conditional GET: (object, True) if it differs from `etag`, (None, False) if it does not,
        (None, True) if there is none."""
        extra = {"IfNoneMatch": etag} if etag else {}
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, **extra)
            tag = entity_tag(answer, self.bucket, key, "GetObject")
            return Object(answer["Body"].read(), tag, _age(answer)), True
        except FAULTS as error:
            if code_of(error) in MISSING:
                return None, True
            if code_of(error) in ("304", "NotModified"):
                return None, False
            raise self.trouble(error, key, "GetObject") from error

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str = "",
    ) -> str:
        """Write and return the entity tag. Raises PreconditionFailedError where the condition does not hold.

        The first condition of a process is put to the proof: ConfigurationError where the store does not keep it.
        """
        if if_absent or if_match:
            require_conditional_writes(self, check_prefix(key))
        return self.put_unproven(key, body, if_absent=if_absent, if_match=if_match, content_type=content_type)

    def put_unproven(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str = "",
    ) -> str:
        """`put`, believing what the store says of its condition: for the proof itself."""
        extra: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        if if_match:
            condition["IfMatch"] = if_match
        where = {"Bucket": self.bucket, "Key": key}
        with self._asking("PutObject", key):
            if condition:
                return put_if(self._client, where, body, condition, extra)
            answer = self._client.put_object(**where, Body=body, **extra)
            return entity_tag(answer, self.bucket, key, "PutObject")

    def get_json(self, key: str) -> Any | None:
        """The parsed object, or None where there is none. Raises ValueError where it is no JSON."""
        found = self.get(key)
        return None if found is None else json_value(found.body)

    def put_json(self, key: str, value: Any, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write JSON; see `put`."""
        body = json.dumps(value, indent=1, sort_keys=True).encode()
        return self.put(key, body, if_absent=if_absent, if_match=if_match, content_type="application/json")

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self.etag(key) is not None

    def etag(self, key: str) -> str | None:
        """The object's entity tag, or None where there is none."""
        try:
            answer = self._client.head_object(Bucket=self.bucket, Key=key)
            return entity_tag(answer, self.bucket, key, "HeadObject")
        except FAULTS as error:
            if not is_mute(error):
                raise self.trouble(error, key, "HeadObject") from error
        try:  # an answer to HEAD has no words: 404 may be the key or the bucket, 403 a right, a wrong key, an old token
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range="bytes=0-0")
            answer["Body"].close()
            return entity_tag(answer, self.bucket, key, "GetObject")
        except FAULTS as error:
            if code_of(error) in MISSING:
                return None
            raise self.trouble(error, key, "GetObject") from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(key, size in bytes) of every object under `prefix`, in key order."""
        for page in self._pages(prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"], entry["Size"]

    def last_modified(self, prefix: str) -> datetime | None:
        """When the newest object under `prefix` was written, or None where there is none."""
        times = (entry["LastModified"] for page in self._pages(prefix) for entry in page.get("Contents", ()))
        return max(times, default=None)

    def folders(self, prefix: str) -> Keys:
        """Names one level below `prefix` (which ends with a slash), sorted."""
        pages = self._pages(prefix, Delimiter="/")
        found = (entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ()))
        return sorted(name[len(prefix) :].rstrip("/") for name in found)

    def _pages(self, prefix: str, **how: str) -> Iterator[dict[str, Any]]:
        with self._asking("ListObjectsV2", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, **how
            )
            for page in pages:
                require_s3(page, "IsTruncated", self.bucket, prefix, "ListObjectsV2")
                yield page

    def upload_file(self, path: Path, key: str, progress: Callable[[int], None] | None = None) -> None:
        """Upload one file, in parallel parts where it is large, with stored checksums."""
        extra = {"ChecksumAlgorithm": "SHA256"} if self.checksums else {}
        with self._asking("PutObject", key):
            self._client.upload_file(
                str(path),
                self.bucket,
                key,
                Config=TransferConfig(**_TRANSFER),
                Callback=progress,
                ExtraArgs=extra,
            )

    def download_file(
        self,
        key: str,
        path: Path,
        progress: Callable[[int], None] | None = None,
        rate: int | None = None,
    ) -> None:
        """Download one object, at most `rate` bytes a second; `path` appears only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        config = TransferConfig(**_TRANSFER, max_bandwidth=rate)
        try:
            with whole(path) as partial:
                self._client.download_file(self.bucket, key, str(partial), Config=config, Callback=progress)
        except FAULTS as error:
            if is_mute(error) and self.etag(key) is None:  # raises what the store says of it
                raise TryAgainError(f"{self.uri(key)} is not there", "somebody has deleted it") from error
            raise self.trouble(error, key, "GetObject") from error

    def upload_directory(self, directory: Path, prefix: str) -> Keys:
        """Upload every file below `directory` (names that begin with a dot are left out); returns the keys."""
        paths = []
        for path in sorted(directory.rglob("*")):
            relative = path.relative_to(directory)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                paths.append(path)
        progress = Progress(logger(prefix=prefix), "uploading", "bytes", sum(p.stat().st_size for p in paths))
        keys = []
        for path in paths:
            keys.append(f"{prefix.rstrip('/')}/{path.relative_to(directory).as_posix()}")
            self.upload_file(path, keys[-1], progress.add)
        return keys

    def download_directory(self, prefix: str, directory: Path) -> Paths:
        """Download every object under `prefix` (a slash is added) into `directory`."""
        prefix = prefix.rstrip("/") + "/"
        paths, found = [], list(self.list(prefix))
        progress = Progress(logger(prefix=prefix), "downloading", "bytes", sum(size for _, size in found))
        for key, _ in found:
            path = directory / key[len(prefix) :]
            if not path.resolve().is_relative_to(directory.resolve()):
                raise ValueError(f"{key} leaves its directory")
            self.download_file(key, path, progress.add)
            paths.append(path)
        return paths

    def delete(self, keys: Keys) -> None:
        """Delete objects; those that are not there are no error. Raises where one stayed."""
        left = self.delete_each(keys)
        if left:
            raise what_stayed(left, len(keys))

    def delete_each(self, keys: Keys) -> Left:
        """Delete objects; those that stayed, and why. Raises nothing for what the store does."""
        return self._deletions.delete(keys)

    def trouble(self, error: BaseException, key: str, action: str) -> ReshelveError:
        """Our error for boto3's."""
        return our_error(error, self.bucket, key, action, checksums=self.checksums)

    @contextmanager
    def _asking(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            raise self.trouble(error, key, action) from error


def _age(answer: dict[str, Any]) -> float:
    """Both times are the store's, so no clock of ours is compared with another's."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = datetime.now(UTC) if said is None else parsedate_to_datetime(said)
    return max(0.0, (now - answer["LastModified"]).total_seconds())


@lru_cache(maxsize=1)
def object_store() -> ObjectStore:
    """The store of this process's settings."""
    return ObjectStore(settings().bucket)


def impatient_store() -> ObjectStore:
    """The same store for loops that must not stand still: one attempt, seconds of patience."""
    bucket = settings().bucket
    return ObjectStore(bucket, clients.client(clients.impatient(), bucket))
