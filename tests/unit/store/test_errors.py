"""Each thing a store can say is either try again (75) or configuration (78), and names bucket, key and action."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as boto
from tests.misbehaving import Fault, Misbehaving, Reply, anything, cuts_bodies, loses_answers, says

from reshelve.client.routing import Caller
from reshelve.deployments import leases
from reshelve.errors import ConfigurationError, ReshelveError, TryAgainError
from reshelve.lineage.run import Run
from reshelve.monitoring.exporter import Looks
from reshelve.processes import stop_group
from reshelve.protocol.pointers import Pointers
from reshelve.settings import settings
from reshelve.store import clients
from reshelve.store.errors import our_error
from reshelve.store.objects import ObjectStore, StoreRefusedError
from reshelve.store.uploads import Upload, upload
from reshelve.tuning.history import TrialHistory
from reshelve.tuning.trial import Status
from reshelve.tuning.tune import ask, evaluate

REFUSED = [
    (403, "AccessDenied"),
    (403, "AllAccessDisabled"),
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (401, "Unauthorized"),
    (403, "SomethingOfAVendor"),
    (404, "NoSuchBucket"),
    (400, "InvalidBucketName"),
    (301, "PermanentRedirect"),
    (400, "AuthorizationHeaderMalformed"),
    (400, "IllegalLocationConstraintException"),
    (501, "NotImplemented"),
    (405, "MethodNotAllowed"),
    (400, "InvalidRequest"),
    (400, "InvalidToken"),
]
AGAIN = [
    (400, "ExpiredToken"),
    (403, "RequestTimeTooSkewed"),
    (400, "RequestTimeout"),
    (409, "OperationAborted"),
    (429, "TooManyRequests"),
    (500, "InternalError"),
    (502, "BadGateway"),
    (503, "SlowDown"),
    (503, "ServiceUnavailable"),
    (504, "SomethingOfAVendor"),
]


def every_call(store: ObjectStore, directory: Path) -> dict[str, Any]:
    """All ways to ask: none may take an error for absence, or let boto3's own out."""
    path = directory / "file"
    path.write_bytes(b"1")
    return {
        "get": lambda: store.get("a/b/c"),
        "get_if_changed": lambda: store.get_if_changed("a/b/c", '"1"'),
        "exists": lambda: store.exists("a/b/c"),
        "list": lambda: list(store.list("a/")),
        "folders": lambda: store.folders("a/"),
        "last_modified": lambda: store.last_modified("a/"),
        "put": lambda: store.put("a/b/c", b"1"),
        "put if absent": lambda: store.put_unproven("a/b/c", b"1", if_absent=True),
        "put if match": lambda: store.put_unproven("a/b/c", b"1", if_match='"1"'),
        "delete": lambda: store.delete(["a/b/c"]),
        "upload_file": lambda: store.upload_file(path, "a/b/c"),
        "download_file": lambda: store.download_file("a/b/c", directory / "back"),
        "upload": lambda: upload(store, [Upload(path, "a/b/c", hashlib.sha256(b"1").hexdigest(), 1)]),
        "create_bucket": store.create_bucket if store.bucket != "nowhere" else lambda: store.get("a/b/c"),
    }


@pytest.fixture
def quick(unruly: Misbehaving, store: ObjectStore) -> ObjectStore:
    """Through the proxy, with one attempt: what boto3 asks again is not the matter here."""
    return ObjectStore(store.bucket, clients.client(clients.impatient(), store.bucket))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(*one, ConfigurationError) for one in REFUSED] + [(*one, TryAgainError) for one in AGAIN],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
def test_what_a_store_says_has_one_meaning_everywhere(
    unruly: Misbehaving, quick: ObjectStore, tmp_path: Path, status: int, code: str, kind: type[ReshelveError]
) -> None:
    unruly.add(says(status, code))
    for name, call in every_call(quick, tmp_path).items():
        with pytest.raises(ReshelveError) as caught:
            call()
        assert isinstance(caught.value, kind), f"{name}: {caught.value!r}"
        if kind is ConfigurationError and not (name == "create_bucket" and code == "NoSuchBucket"):
            headline = caught.value.headline
            assert f"s3://{quick.bucket}" in headline and code in headline, name
            assert "a/" in headline or name == "create_bucket", f"{name}: {headline}"


def test_a_bucket_that_is_missing_is_never_an_object_that_is_missing(
    store: ObjectStore, tmp_path: Path
) -> None:
    missing = ObjectStore("nowhere")
    calls = every_call(missing, tmp_path)
    for name in (
        "get",
        "get_if_changed",
        "exists",
        "list",
        "folders",
        "last_modified",
        "delete",
        "download_file",
    ):
        with pytest.raises(StoreRefusedError, match=r"s3://nowhere.*NoSuchBucket"):
            calls[name]()


def test_absence_is_still_absence(store: ObjectStore, tmp_path: Path) -> None:
    assert store.get("a/b/c") is None and not store.exists("a/b/c") and store.folders("a/") == []
    with pytest.raises(TryAgainError):
        store.download_file("a/b/c", tmp_path / "back")
    assert list(tmp_path.glob(".*back*")) == []


def test_bodies_that_break_off_say_try_again(
    unruly: Misbehaving, quick: ObjectStore, store: ObjectStore, tmp_path: Path
) -> None:
    store.put("a/b/c", b"1" * 1000)
    unruly.add(cuts_bodies(lambda request: request.method == "GET"))
    for call in (
        lambda: quick.get("a/b/c"),
        lambda: list(quick.list("a/")),
        lambda: quick.download_file("a/b/c", tmp_path / "back"),
    ):
        with pytest.raises(TryAgainError, match="did not answer as expected"):
            call()
    assert list(tmp_path.glob(".*back*")) == []


def test_answers_that_never_come_say_try_again(
    unruly: Misbehaving, quick: ObjectStore, tmp_path: Path
) -> None:
    unruly.add(loses_answers(lambda request: request.method != "PUT", times=1000))
    for name, call in every_call(quick, tmp_path).items():
        if name not in ("put", "put if absent", "put if match", "upload_file"):
            with pytest.raises(TryAgainError):
                call()


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"AWS_ENDPOINT_URL": "127.0.0.1:8333"}, "AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, "AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "other"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "other"}, "InvalidAccessKeyId"),
        ({"AWS_PROFILE": "nobody"}, "nobody"),
        ({"RESHELVE_BUCKET": "Not/a bucket"}, "RESHELVE_BUCKET"),
        ({"RESHELVE_BUCKET": "reshelve-typo"}, "NoSuchBucket"),
        ({"AWS_REQUEST_CHECKSUM_CALCULATION": "sometimes"}, "request_checksum_calculation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_setting_is_a_wrong_configuration(
    store: ObjectStore,
    reshelve: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str | None],
    names: str,
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        wrong.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        for name, value in variables.items():
            if value is None:
                wrong.delenv(name)
            else:
                wrong.setenv(name, value)
        done = reshelve("rollback", "--ranker", "recommend", "--dry-run")
    assert done.returncode == 78, done.stderr
    assert names in done.stderr and "Traceback" not in done.stderr
    assert "nothing has been released" not in done.stderr


def test_https_to_a_store_that_speaks_http_is_a_wrong_setting(
    s3_environment: dict[str, str], store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_environment["AWS_ENDPOINT_URL"].replace("http://", "https://"))
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        ObjectStore(store.bucket).get("key")


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(403, "AccessDenied", 78), (400, "ExpiredToken", 75), (503, "SlowDown", 75)],
)
def test_verbs_end_as_the_store_says(
    unruly: Misbehaving, store: ObjectStore, reshelve: Any, status: int, code: str, exit_code: int
) -> None:
    unruly.add(says(status, code))
    done = reshelve("rollback", "--ranker", "recommend", "--dry-run")
    assert done.returncode == exit_code, done.stderr
    assert code in done.stderr and store.bucket in done.stderr


@pytest.mark.parametrize("status", [200, 404])
def test_what_is_no_store_at_all_is_a_wrong_setting(
    unruly: Misbehaving, quick: ObjectStore, status: int
) -> None:
    """A page of some other server is no object, and its 404 no absence."""
    page = Reply(status, {"Content-Type": "text/html"}, b"<html><body>Hello</body></html>")
    unruly.add(Fault(anything, lambda request, forward: page))
    for call in (lambda: quick.get("a/b/c"), lambda: quick.exists("a/b/c"), lambda: quick.put("a/b/c", b"1")):
        with pytest.raises(ConfigurationError, match=f"s3://{quick.bucket}/a/b/c"):
            call()
    with pytest.raises(ReshelveError, match="AWS_ENDPOINT_URL"):
        list(quick.list("a/"))


def denied(unruly: Misbehaving) -> Any:
    return unruly.add(says(403, "AccessDenied"))


def test_loops_outlive_a_refusal(
    unruly: Misbehaving,
    through: ObjectStore,
    store: ObjectStore,
    make_stable: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rights come and go while a host is being set right; what serves must not mind."""
    pointers, looks = Pointers(through, settings().home / "followed"), Looks(through)
    pointers.refresh()
    assert pointers.away is None
    refusal = denied(unruly)
    pointers._listed_at = float("-inf")
    pointers.refresh()
    assert pointers.away is not None and "AccessDenied" in pointers.away
    reachable = [metric for metric in looks.collect() if metric.name == "reshelve_store_reachable"]
    assert reachable[0].samples[0].value == 0.0
    with Caller("recommend", ["127.0.0.1:9"], through, every=0.05) as caller:
        seen = len(unruly.asked)
        wait_for(lambda: len(unruly.asked) > seen + 2)
        assert caller._follower is not None and caller._follower._thread.is_alive()
    unruly.faults.remove(refusal)
    pointers._not_before = 0.0
    pointers.refresh()
    assert pointers.away is None


def test_a_sign_of_life_outlives_a_refusal(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_RELEASE_LEASE_SECONDS", "0.2")
    settings.cache_clear()
    with leases.working(through, "recommend", 1, "test"):
        refusal = denied(unruly)
        wait_for(lambda: refusal.seen >= 3)
        unruly.faults.remove(refusal)
        etag = store.etag(leases.lease_key("recommend", 1))
        assert etag is not None
        refusal = denied(unruly)  # and the last sign, taken back, may be refused
    assert store.exists(leases.lease_key("recommend", 1))


def test_a_refusal_says_nothing_of_a_trial(
    unruly: Misbehaving, through: ObjectStore, packaged: Run, tmp_path: Path
) -> None:
    """A trial that failed is never tried again: with the right given back, its values would be lost to tuning."""
    run = Run(packaged.ranker, packaged.partition, through, tmp_path / "another host")
    first = ask(run)["trials"][0]
    refusal = unruly.add(says(403, "AccessDenied", lambda request: "/examples/" in request.key))
    with pytest.raises(StoreRefusedError, match="examples"):
        evaluate(run, first)
    unruly.faults.remove(refusal)
    assert TrialHistory(run).trial(first).status is Status.ASKED


@pytest.mark.slow
def test_an_agent_outlives_a_refusal(unruly: Misbehaving, store: ObjectStore, tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    command = [
        sys.executable,
        "-m",
        "reshelve.cli",
        "agent",
        "--models",
        str(tmp_path / "models"),
        "--every",
        "0.2",
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--server", "127.0.0.1:9"], stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_for(lambda: "agent started" in log.read_text(), 60)
        refusal = denied(unruly)
        wait_for(lambda: "serving goes on" in log.read_text(), 60)
        unruly.faults.remove(refusal)
        wait_for(lambda: "S3 is back" in log.read_text(), 60)
        assert process.poll() is None
    finally:
        stop_group(process.pid)
        process.wait(timeout=30)


def wait_for(done: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come"
        threading.Event().wait(0.02)


@pytest.mark.parametrize("started", [False, True], ids=["no platform here", "a platform here"])
def test_without_credentials_the_way_to_a_first_platform_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path))
    settings.cache_clear()
    if started:
        (tmp_path / "env").write_text("RESHELVE_S3_PORT='8333'\n")
    error = our_error(boto.NoCredentialsError(), "reshelve", "a", "GetObject", checksums=False)
    assert "AWS_ACCESS_KEY_ID" in error.detail
    assert ("`make run` or `make night` starts it" in error.detail) is not started
