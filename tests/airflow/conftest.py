"""Airflow for tests: a home of its own, the DAGs and plugins of this repository, and the real processes where asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# Airflow reads these once, at its first import.
os.environ.update(
    AIRFLOW_HOME=tempfile.mkdtemp(prefix="airflow-tests-"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(PROJECT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(PROJECT / "plugins"),
)


@pytest.fixture(scope="session")
def platforms() -> Iterator[ExitStack]:
    """What was started for this folder's tests."""
    with ExitStack() as started:
        yield started


@pytest.fixture(scope="session")
def airflow_here(tmp_path_factory: pytest.TempPathFactory, platforms: ExitStack) -> Any:
    """Airflow's four processes, once for all tests of this folder that need them."""
    from tests.airflow.platform_here import running

    _started.append(platforms)
    return platforms.enter_context(contextmanager(running)(tmp_path_factory.mktemp("platform")))


@pytest.fixture(scope="module")
def published_shelf(airflow_here: Any) -> Any:
    """The platform with three signed versions of `careful`."""
    from tests.airflow.shelf import published_on

    published_on(airflow_here)
    return airflow_here


@pytest.fixture
def shelf(published_shelf: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The deployment of `careful`: one and then two are stable, and nothing is being released."""
    from tests.airflow.shelf import shelf_on

    monkeypatch.setenv("RESHELVE_HOME", published_shelf.environment["RESHELVE_HOME"])
    with shelf_on(published_shelf) as made:
        yield made


_started: list[ExitStack] = []


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The folders after this one start platforms of their own: two at once are too much for a small machine."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        while _started:
            _started.pop().close()


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository."""
    return PROJECT
