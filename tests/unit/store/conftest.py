"""A store that misbehaves, in front of the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import judged
from tests.misbehaving import Misbehaving, misbehaving

from reshelve.lineage.run import Run
from reshelve.pipeline.references import load_ranker
from reshelve.settings import settings
from reshelve.store import objects

Verb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def unruly(
    store: objects.ObjectStore, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Misbehaving]:
    """The proxy; from now on this process's settings, and its children's, lead to it. `store` still asks the real one."""
    keys = (s3_environment["AWS_ACCESS_KEY_ID"], s3_environment["AWS_SECRET_ACCESS_KEY"])
    with misbehaving(s3_environment["AWS_ENDPOINT_URL"], *keys) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        objects.object_store.cache_clear()
        yield proxy


@pytest.fixture
def through(unruly: Misbehaving, store: objects.ObjectStore) -> objects.ObjectStore:
    """The bucket as it is seen through the proxy."""
    return objects.ObjectStore(store.bucket)


@pytest.fixture
def reshelve(tmp_path: Path) -> Verb:
    """Run a verb as a process of its own."""

    def run(*arguments: str, seconds: float = 120, **variables: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "reshelve.cli", *arguments],
            capture_output=True, text=True, timeout=seconds, check=False,
            env={**os.environ, **variables}, cwd=tmp_path,
        )  # fmt: skip

    return run


@pytest.fixture
def packaged(store: objects.ObjectStore) -> Run:
    """The run of `reshelve publish -r recommend -p 2011-08-30`: all before it is done."""
    run = Run(load_ranker("recommend"), date(2011, 8, 30), store, settings().work)
    directory = run.stage("package").directory / "version"
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    run.stage("package").commit({"bytes": 5})
    run.stage("examples").commit({})
    run.stage("train").commit({})
    run.stage("gate").commit(judged(run, {"verdict": "promote"}))
    return run
