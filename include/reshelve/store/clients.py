"""boto3's clients, as this project sets them: how patient they are, and whether they send checksums of their own.

Stores that are older than checksums in headers and trailers refuse them. `AWS_REQUEST_CHECKSUM_CALCULATION=when_required`
then switches all of them off, also those that boto3 sends regardless: deletions carry the MD5 that S3 asked for before.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import boto3
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from reshelve.store.errors import our_error

_CHECKSUM_HEADERS = ("x-amz-checksum-", "x-amz-sdk-checksum-algorithm", "x-amz-trailer")


def patient(s3: dict[str, Any] | None = None) -> Config:
    """Four attempts, a minute each."""
    return Config(
        retries={"mode": "standard", "max_attempts": 4},
        connect_timeout=5,
        read_timeout=60,
        s3={"addressing_style": "path", **(s3 or {})},
    )


def impatient() -> Config:
    """One attempt, seconds of patience."""
    return Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=2,
        read_timeout=5,
        s3={"addressing_style": "path"},
    )


def client(config: Config, bucket: str) -> Any:
    """A client of its own session: boto3's default one keeps the first credentials it saw for the whole process.

    Raises StoreRefusedError where the environment names no endpoint, profile or region that could be.
    """
    try:
        made = boto3.Session().client("s3", config=config)
        if not sends_checksums(made) and "AWS_RESPONSE_CHECKSUM_VALIDATION" not in os.environ:
            # A store that does not know checksums is not asked for them either, unless somebody says so.
            config = config.merge(Config(response_checksum_validation="when_required"))
            made = boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise our_error(error, bucket, "", "reaching the store", checksums=False) from error
    made.meta.events.register("needs-retry.s3.HeadBucket", _no_further)
    if not sends_checksums(made):
        made.meta.events.register("before-sign.s3.DeleteObjects", _md5_instead)
    return made


def sends_checksums(made: Any) -> bool:
    """Whether this client's requests may carry checksum headers."""
    return bool(made.meta.config.request_checksum_calculation != "when_required")


def _no_further(request_dict: dict[str, Any], **_: Any) -> None:
    """boto3 asks HEAD for the region of a bucket that answers 301, and where HEAD answers 301 asks again, without end."""
    request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _md5_instead(request: AWSRequest, **_: Any) -> None:
    for name in [name for name in request.headers if name.lower().startswith(_CHECKSUM_HEADERS)]:
        del request.headers[name]
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
