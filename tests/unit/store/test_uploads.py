"""Uploads that break off and go on, on a real object store; publishers that race and publishers that die."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import judged

from reshelve.errors import DataError
from reshelve.store import uploads
from reshelve.store.objects import ObjectStore
from reshelve.store.uploads import Upload, abandon, upload

PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes
SIZE = 3 * PART_BYTES + 12345


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", PART_BYTES)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of four parts."""
    path = tmp_path_factory.mktemp("large") / "saved_model.pb"
    path.write_bytes(os.urandom(SIZE))
    return path


def the_upload(path: Path, key: str = "models/recommend/1/saved_model.pb") -> Upload:
    body = path.read_bytes()
    return Upload(path, key, hashlib.sha256(body).hexdigest(), len(body))


def test_a_large_file_arrives_with_its_digest_and_is_not_sent_twice(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    one = the_upload(large)
    assert upload(store, [one]) == SIZE
    store.download_file(one.key, tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == one.sha256
    assert store.client.head_object(Bucket=store.bucket, Key=one.key)["Metadata"]["sha256"] == one.sha256
    assert upload(store, [one]) == 0


def test_an_upload_that_was_broken_off_sends_only_what_is_missing(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    class BrokenOffError(Exception):
        pass

    done: list[int] = []

    def give_up(size: int) -> None:
        done.append(size)
        if len(done) == 2:
            raise BrokenOffError

    one = the_upload(large)
    with pytest.raises(BrokenOffError):
        upload(store, [one], give_up)
    assert not store.exists(one.key)
    assert upload(store, [one]) <= SIZE - 2 * PART_BYTES
    store.download_file(one.key, tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == one.sha256


def test_parts_of_other_bytes_are_sent_again(store: ObjectStore, large: Path, tmp_path: Path) -> None:
    """A part that does not match is no part of the file, whoever sent it."""
    one = the_upload(large)
    made = store.client.create_multipart_upload(
        Bucket=store.bucket, Key=one.key, ChecksumAlgorithm="CRC32", Metadata={"sha256": one.sha256}
    )
    store.client.upload_part(
        Bucket=store.bucket,
        Key=one.key,
        UploadId=made["UploadId"],
        PartNumber=2,
        Body=bytes(PART_BYTES),
        ChecksumAlgorithm="CRC32",
    )
    assert upload(store, [one]) == SIZE
    store.download_file(one.key, tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == one.sha256


def test_a_file_that_changes_meanwhile_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"graph")
    one = the_upload(path)
    path.write_bytes(b"grapf")
    with pytest.raises(DataError, match="changed while"):
        upload(store, [one])


def test_two_uploads_of_the_same_file_end_with_the_file(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    one = the_upload(large)

    def send(_: int) -> Any:
        try:
            return upload(store, [one])
        except Exception as error:  # noqa: BLE001 - the loser may find its parts gone: it says so, and asks again
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(send, range(2)))
    assert any(isinstance(result, int) for result in results), results
    assert upload(store, [one]) == 0
    store.download_file(one.key, tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == one.sha256


def test_what_nobody_finished_is_thrown_away(store: ObjectStore) -> None:
    store.client.create_multipart_upload(Bucket=store.bucket, Key="models/recommend/1/x")
    assert abandon(store, "models/recommend/1/") == 1
    assert abandon(store, "models/recommend/1/") == 0


_PUBLISH = """
import sys
from datetime import date
from pathlib import Path
from reshelve.store import uploads
uploads.PART_BYTES = 5 * 1024 * 1024
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import object_store
print(publish(Run(load_ranker("recommend"), date(2011, 8, 30), object_store(), Path(sys.argv[1])))["version"])
"""


@pytest.mark.slow
def test_a_publisher_killed_again_and_again_publishes_one_whole_version(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    from datetime import date

    from reshelve.lineage.run import Run
    from reshelve.pipeline.references import load_ranker
    from reshelve.store import versions

    run = Run(load_ranker("recommend"), date(2011, 8, 30), store, tmp_path / "work")
    target = run.stage("package").directory / "version"
    (target / "variables").mkdir(parents=True)
    (target / "saved_model.pb").write_bytes(large.read_bytes())
    (target / "variables" / "index").write_bytes(b"index")
    for stage, result in (
        ("package", {"bytes": 1}),
        ("examples", {}),
        ("train", {}),
        ("gate", judged(run, {"verdict": "promote"})),
    ):
        run.stage(stage).commit(result)
    command = [sys.executable, "-c", _PUBLISH, str(tmp_path / "work")]
    for wait in (0.0, 0.05, 0.1, 0.2):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not list(store.list("models/recommend/")) and time.monotonic() < deadline:
            time.sleep(0.01)  # until it has claimed its integer
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-1] == "20110830001"  # its own integer, taken up again
    assert store.folders("models/recommend/") == ["20110830001"]
    versions.download_version(store, "recommend", 20110830001, tmp_path / "copy")
    assert uploads.upload(store, []) == 0
