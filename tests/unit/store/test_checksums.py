"""Stores that are older than checksums in headers and trailers: one setting makes all of it work, and errors name it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.misbehaving import (
    Misbehaving,
    Request,
    conditional,
    many_deletions,
    misbehaving,
    says,
    with_checksums,
)

from reshelve.errors import ConfigurationError
from reshelve.gateway.certificate import self_signed
from reshelve.lineage.run import Run
from reshelve.store import uploads, versions
from reshelve.store.conditions import require_conditional_writes
from reshelve.store.objects import ObjectStore
from reshelve.store.uploads import Upload, upload

SETTING = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
WORDS = [  # of stores of several vendors
    (501, "NotImplemented", "Header 'x-amz-sdk-checksum-algorithm' with value 'CRC32' not implemented"),
    (400, "InvalidArgument", "Unsupported header 'x-amz-sdk-checksum-algorithm' received for this API call."),
    (400, "InvalidRequest", "x-amz-checksum-* headers are not supported"),
    (400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match"),
    (411, "MissingContentLength", "You must provide the Content-Length HTTP header."),
]


def old_store(request: Request) -> bool:
    """It refuses what it does not know, and wants deletions to carry an MD5."""
    return with_checksums(request) or (many_deletions(request) and not request.has("content-md5"))


@pytest.mark.parametrize(("status", "code", "message"), WORDS, ids=[code for _, code, _ in WORDS])
def test_the_error_names_the_setting(
    unruly: Misbehaving, through: ObjectStore, status: int, code: str, message: str
) -> None:
    unruly.add(says(status, code, old_store, message=message))
    calls: list[Any] = [lambda: through.put("a/b", b"1"), lambda: through.put("a/b", b"1", if_absent=True)]
    for call in calls:
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert SETTING in str(caught.value)


def test_with_the_setting_everything_works(
    unruly: Misbehaving,
    store: ObjectStore,
    packaged: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reshelve: Any,
) -> None:
    refused = unruly.add(says(400, "InvalidArgument", old_store))
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setattr(uploads, "PART_BYTES", 5 * 1024 * 1024)
    through = ObjectStore(store.bucket)
    use_all_of_it(through, tmp_path)
    done = reshelve("publish", "--ranker", "recommend", "--partition", "2011-08-30")
    assert done.returncode == 0, done.stderr
    assert versions.list_versions(store, "recommend") == [20110830001]
    assert refused.seen == 0


def use_all_of_it(store: ObjectStore, directory: Path) -> None:
    """Small and large objects, in parts and whole, conditional, listed, read and deleted."""
    body = os.urandom(6 * 1024 * 1024)
    path = directory / "graph"
    path.write_bytes(body)
    require_conditional_writes(store, "a/b/")
    store.put("a/b/small", b"1", if_absent=True)
    store.upload_file(path, "a/b/file")
    import hashlib

    digest = hashlib.sha256(body).hexdigest()
    upload(store, [Upload(path, "a/b/parts", digest, len(body))])
    small = directory / "small"
    small.write_bytes(b"small")
    upload(store, [Upload(small, "a/b/whole", hashlib.sha256(b"small").hexdigest(), 5)])
    for key in ("a/b/file", "a/b/parts"):
        store.download_file(key, directory / "back")
        assert (directory / "back").read_bytes() == body
    keys = [key for key, _ in store.list("a/")]
    assert keys == ["a/b/file", "a/b/parts", "a/b/small", "a/b/whole"]
    store.delete(keys)
    assert list(store.list("a/")) == []


@pytest.mark.parametrize("calculation", ["when_required", "when_supported"])
def test_over_tls_checksums_come_as_trailers_and_go_by_the_same_setting(
    s3_environment: dict[str, str],
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calculation: str,
) -> None:
    certificate = self_signed(tmp_path)
    keys = (s3_environment["AWS_ACCESS_KEY_ID"], s3_environment["AWS_SECRET_ACCESS_KEY"])
    with misbehaving(s3_environment["AWS_ENDPOINT_URL"], *keys, certificate) as proxy:
        refused = proxy.add(
            says(400, "XAmzContentSHA256Mismatch", lambda request: request.has("x-amz-trailer"))
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url.replace("127.0.0.1", "localhost"))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", calculation)
        through = ObjectStore(store.bucket)
        if calculation == "when_required":
            use_all_of_it(through, tmp_path)
            assert refused.seen == 0
            return
        with pytest.raises(ConfigurationError, match=SETTING):
            through.put("a/b/c", b"1")
        assert refused.seen


def test_a_certificate_that_nobody_trusts_is_a_wrong_setting(
    s3_environment: dict[str, str], store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = (s3_environment["AWS_ACCESS_KEY_ID"], s3_environment["AWS_SECRET_ACCESS_KEY"])
    with misbehaving(s3_environment["AWS_ENDPOINT_URL"], *keys, self_signed(tmp_path)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(ConfigurationError, match="AWS_CA_BUNDLE"):
            ObjectStore(store.bucket).get("a/b")


def test_new_stores_get_checksums(unruly: Misbehaving, through: ObjectStore, store: ObjectStore) -> None:
    through.put("a/b", b"1", if_absent=True)
    assert any(conditional(request) and request.has("x-amz-checksum-") for request in unruly.asked)
