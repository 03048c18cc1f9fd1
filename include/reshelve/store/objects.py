"""S3 as this project uses it: whole objects, conditional writes, directories, paging.

Conditional writes (`If-None-Match: *`, `If-Match`) carry the two promises of the release machine: a
version exists once, and the pointer moves by compare-and-swap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from reshelve.errors import TryAgainError
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.settings import settings

Keys = list[str]
Paths = list[Path]

_MIB = 1024 * 1024
_TRANSFER = {"multipart_threshold": 32 * _MIB, "multipart_chunksize": 32 * _MIB, "max_concurrency": 4}
_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}
_CONFLICT = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}


class PreconditionFailedError(Exception):
    """A conditional write lost: the object exists already, or is not the one that was read."""


@dataclass(frozen=True)
class Object:
    """One object's bytes, its entity tag, and its age in seconds by the store's own clock."""

    body: bytes
    etag: str
    age: float = 0.0


class ObjectStore:
    """One bucket. Keys are relative to it and never begin with a slash.

    Every method raises TryAgainError when the store is away.
    """

    def __init__(self, bucket: str, client: Any = None) -> None:
        self.bucket = bucket
        self._client = client or _client(_patient())
        self._given = client is not None

    @property
    def client(self) -> Any:
        """boto3's client, for what needs more than whole objects (`store.uploads`)."""
        return self._client

    @cached_property
    def bulk(self) -> Any:
        """A client for large bodies that come with a checksum of their own.

        Over plain HTTP boto3 would hash each of them once more for the request's signature, at the cost of a third of an
        upload; over HTTPS it leaves that out by itself.
        """
        return self._client if self._given else _client(_patient({"payload_signing_enabled": False}))

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
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if _code(error) not in _MISSING:
                raise self.away(error) from error
            self._client.create_bucket(Bucket=self.bucket)
        except BotoCoreError as error:
            raise self.away(error) from error

    def get(self, key: str) -> Object | None:
        """The object, or None where there is none."""
        return self.get_if_changed(key, None)[0]

    def get_if_changed(self, key: str, etag: str | None) -> tuple[Object | None, bool]:
        """One conditional GET: (object, True) if it differs from `etag`, (None, False) if it does not,
        (None, True) if there is none."""
        extra = {"IfNoneMatch": etag} if etag else {}
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, **extra)
            return Object(answer["Body"].read(), answer["ETag"], _age(answer)), True
        except ClientError as error:
            if _code(error) in _MISSING:
                return None, True
            if _code(error) in ("304", "NotModified"):
                return None, False
            raise self.away(error) from error
        except BotoCoreError as error:
            raise self.away(error) from error

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str = "",
    ) -> str:
        """Write and return the entity tag. Raises PreconditionFailedError where the condition does not hold."""
        extra: dict[str, Any] = {"ContentType": content_type} if content_type else {}
        if if_absent:
            extra["IfNoneMatch"] = "*"
        if if_match:
            extra["IfMatch"] = if_match
        try:
            return str(self._client.put_object(Bucket=self.bucket, Key=key, Body=body, **extra)["ETag"])
        except ClientError as error:
            if _code(error) in _CONFLICT or ((if_match or if_absent) and _code(error) in _MISSING):
                raise PreconditionFailedError(self.uri(key)) from error
            raise self.away(error) from error
        except BotoCoreError as error:
            raise self.away(error) from error

    def get_json(self, key: str) -> Any | None:
        """The parsed object, or None where there is none."""
        found = self.get(key)
        return None if found is None else json.loads(found.body)

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
            return str(self._client.head_object(Bucket=self.bucket, Key=key)["ETag"])
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise self.away(error) from error
        except BotoCoreError as error:
            raise self.away(error) from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(key, size in bytes) of every object under `prefix`, in key order."""
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                for entry in page.get("Contents", ()):
                    yield entry["Key"], entry["Size"]
        except (ClientError, BotoCoreError) as error:
            raise self.away(error) from error

    def last_modified(self, prefix: str) -> datetime | None:
        """When the newest object under `prefix` was written, or None where there is none."""
        newest: datetime | None = None
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                for entry in page.get("Contents", ()):
                    newest = max(newest or entry["LastModified"], entry["LastModified"])
        except (ClientError, BotoCoreError) as error:
            raise self.away(error) from error
        return newest

    def folders(self, prefix: str) -> Keys:
        """Names one level below `prefix` (which ends with a slash), sorted."""
        found: Keys = []
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                found += [
                    entry["Prefix"][len(prefix) :].rstrip("/") for entry in page.get("CommonPrefixes", ())
                ]
        except (ClientError, BotoCoreError) as error:
            raise self.away(error) from error
        return sorted(found)

    def upload_file(self, path: Path, key: str, progress: Callable[[int], None] | None = None) -> None:
        """Upload one file, in parallel parts where it is large, with stored checksums."""
        try:
            self._client.upload_file(
                str(path),
                self.bucket,
                key,
                Config=TransferConfig(**_TRANSFER),
                Callback=progress,
                ExtraArgs={"ChecksumAlgorithm": "SHA256"},
            )
        except (ClientError, BotoCoreError, boto3.exceptions.Boto3Error) as error:
            raise self.away(error) from error

    def download_file(
        self,
        key: str,
        path: Path,
        progress: Callable[[int], None] | None = None,
        rate: int | None = None,
    ) -> None:
        """Download one object, at most `rate` bytes a second; `path` appears only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            config = TransferConfig(**_TRANSFER, max_bandwidth=rate)
            self._client.download_file(self.bucket, key, str(partial), Config=config, Callback=progress)
        except (ClientError, BotoCoreError, boto3.exceptions.Boto3Error) as error:
            partial.unlink(missing_ok=True)
            raise self.away(error) from error
        partial.rename(path)

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
        """Delete objects; those that are not there are no error."""
        try:
            for start in range(0, len(keys), 1000):
                batch = [{"Key": key} for key in keys[start : start + 1000]]
                self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
        except (ClientError, BotoCoreError) as error:
            raise self.away(error) from error

    def away(self, error: Exception) -> TryAgainError:
        """Our error for boto3's."""
        return TryAgainError(f"the object store s3://{self.bucket} did not answer as expected", str(error))


def _patient(s3: dict[str, Any] | None = None) -> Config:
    return Config(
        retries={"mode": "standard", "max_attempts": 4},
        connect_timeout=5,
        read_timeout=60,
        s3={"addressing_style": "path", **(s3 or {})},
    )


def _client(config: Config) -> Any:
    # A session of its own: boto3's default one keeps the first credentials it saw for the whole process.
    return boto3.Session().client("s3", config=config)


def _age(answer: dict[str, Any]) -> float:
    """Both times are the store's, so no clock of ours is compared with another's."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = datetime.now(UTC) if said is None else parsedate_to_datetime(said)
    return max(0.0, (now - answer["LastModified"]).total_seconds())


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@lru_cache(maxsize=1)
def object_store() -> ObjectStore:
    """The store of this process's settings."""
    return ObjectStore(settings().bucket)


def impatient_store() -> ObjectStore:
    """The same store for loops that must not stand still: one attempt, seconds of patience."""
    quick = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=2,
        read_timeout=5,
        s3={"addressing_style": "path"},
    )
    return ObjectStore(settings().bucket, _client(quick))
