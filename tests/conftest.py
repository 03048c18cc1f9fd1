"""Fixtures shared by all tests: a real object store, and the shop's data where it may not be published."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from reshelve.deployments import deployment_log
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.platform import seaweedfs
from reshelve.processes import free_port, stop_group
from reshelve.settings import PROJECT, settings
from reshelve.store import keys, objects

# A test that has one of these among its fixtures, or behind them, has started a server or trained a model.
NOT_QUICK = frozenset(
    {
        "s3_environment",
        "airflow_here",
        "host",
        "caller",
        "saved_model",
        "tiny_base",
        "small_bert",
        "trained_run",
    }
)


# A machine that is busy with other tests draws breath for longer than the 200 ms that an example has by default.
hypothesis.settings.register_profile("reshelve", deadline=None)
hypothesis.settings.load_profile("reshelve")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a server or a model; tests that start processes of their own say so themselves."""
    for item in items:
        if NOT_QUICK.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


WITH_AIRFLOWS_PROCESSES = {
    f"tests/airflow/test_{name}.py"
    for name in ("another_person", "log_in", "platform", "security", "stale_pages")
}


class Together(LoadScopeScheduling):
    """A file's tests go to one worker, for what they share; and so do all that start a platform, one after the other.

    Two platforms at once are too much for a small machine, while one mostly waits, and leaves a processor to the others.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "platform" if file.startswith("tests/e2e/") or file in WITH_AIRFLOWS_PROCESSES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Which tests stay together where there are several workers (`-n`)."""
    return Together(config, log)


@pytest.fixture(autouse=True)
def settings_of_one_test() -> Iterator[None]:
    """What one test has set in its environment is not remembered in the next."""
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real SeaweedFS of this test session, and the variables that reach it."""
    directory = tmp_path_factory.mktemp("seaweedfs")
    port = free_port()
    process = seaweedfs.start_seaweedfs(directory, port, directory / "log")
    try:
        yield seaweedfs.environment(port, seaweedfs.credentials(directory))
    finally:
        stop_group(process.pid)


@pytest.fixture
def store(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[objects.ObjectStore]:
    """An empty bucket and an empty home for one test; child processes inherit both."""
    for key, value in s3_environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RESHELVE_BUCKET", f"test-{os.urandom(6).hex()}")
    settings.cache_clear()
    objects.object_store.cache_clear()
    keys.make(if_missing=True)
    made = objects.object_store()
    made.create_bucket()
    yield made
    # SeaweedFS gives every bucket volumes of its own, and has a limit of them: a session of tests would reach it.
    boto3.client(
        "s3",
        endpoint_url=s3_environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=s3_environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_environment["AWS_SECRET_ACCESS_KEY"],
        region_name=s3_environment["AWS_DEFAULT_REGION"],
    ).delete_bucket(Bucket=made.bucket)
    settings.cache_clear()
    objects.object_store.cache_clear()


@pytest.fixture
def make_stable() -> Callable[..., deployment_log.Pointer]:
    """`make_stable(store, ranker, version)`: the whole way of a release, without the work behind it; `held`: the gate held it."""

    def made(
        store: objects.ObjectStore, ranker: str, version: int, *, held: bool = False
    ) -> deployment_log.Pointer:
        def move(change: deployment_log.Change) -> deployment_log.Pointer:
            return deployment_log.move_pointer(store, ranker, change, by="test", reason="")

        move(deployment_log.Offer(version, Plan(allow_held=held)))
        move(deployment_log.Advance(version, Event.LOADED, ReleaseState.LOADING))
        move(deployment_log.Advance(version, Event.PROBED, ReleaseState.PROBING))
        return move(deployment_log.Promote(version))

    return made


@pytest.fixture(scope="session")
def shop_data() -> Path:
    """The directory of real data that is not published with the project (`RESHELVE_DATA`)."""
    path = Path(os.environ.get("RESHELVE_DATA", PROJECT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"RESHELVE_DATA: {path} is not here (data whose licence forbids publishing it)")
    return path
