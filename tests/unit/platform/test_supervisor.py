"""What dies of the platform is started again: after a while, not for ever, never twice, and not after `down`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import psycopg2
import pytest
from botocore.exceptions import EndpointConnectionError

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.platform import machine, postgres, supervisor
from reshelve.platform.configuration import Ports
from reshelve.platform.services import PlatformState, Service
from reshelve.platform.supervisor import DELAYS, SUPERVISORS, WINDOW_SECONDS, Restarts, Supervisor
from reshelve.processes import free_port, port_is_open, start, wait_until
from reshelve.settings import settings

pytestmark = pytest.mark.slow  # starts processes

NOW = 1_000_000.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    for name in Ports.model_fields:
        monkeypatch.setenv(f"RESHELVE_{name.upper()}", str(free_port()))
    settings.cache_clear()
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    machine.down()
    settings.cache_clear()


def test_each_restart_waits_longer_and_there_is_a_last_one() -> None:
    restarts, waited = Restarts(), []
    while (delay := restarts.delay("agent", NOW)) is not None:
        waited.append(delay)
        restarts = restarts.with_restart(["agent"], NOW)
    assert tuple(waited) == DELAYS and list(DELAYS) == sorted(DELAYS)
    assert restarts.delay("scheduler", NOW) == DELAYS[0], "each process has its own"
    assert restarts.delay("agent", NOW + WINDOW_SECONDS - 1) is None
    assert restarts.delay("agent", NOW + WINDOW_SECONDS) == DELAYS[0]


def test_restarts_are_kept_for_the_other_supervisor(tmp_path: Path) -> None:
    Restarts().with_restart(["agent"], NOW).write(tmp_path)
    later = Restarts.read(tmp_path).with_restart(["agent", "scheduler"], NOW + 1)
    assert (later.of("agent", NOW + 1), later.of("scheduler", NOW + 1)) == (2, 1)
    Restarts.forget(tmp_path)
    assert Restarts.read(tmp_path) == Restarts()


def dead_service(home: Path, name: str) -> Service:
    process = start([sys.executable, "-c", "import time; time.sleep(60)"], home / "log", keep=lambda _: None)
    service = Service.of(name, process, home / "log")
    process.kill()
    process.wait()
    return service


def test_what_has_died_too_often_is_left_alone_and_status_says_so(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    PlatformState().with_service(dead_service(home, "agent")).write(home)
    Restarts().with_restart(["agent"], time.time()).model_copy(
        update={"made": {"agent": (time.time(),) * len(DELAYS)}}
    ).write(home)
    before, watch = PlatformState.read(home), Supervisor(home)
    assert watch.look() == watch.look() == [] and PlatformState.read(home) == before
    found = machine.status()["services"]["agent"]
    assert found["state"] == "dead" and "was started again 5 times within an hour" in found["note"]


def test_what_has_just_died_is_left_to_whoever_killed_it(home: Path) -> None:
    PlatformState().with_service(dead_service(home, "agent")).write(home)
    assert Supervisor(home).look() == []


def test_what_was_stopped_meanwhile_is_not_started(home: Path) -> None:
    """A supervisor that saw a death, and then waited for `down` to let go of the platform."""
    PlatformState().write(home)
    assert machine.revive(["agent", "model-server"]) == []
    assert PlatformState.read(home).services == {} and Restarts.read(home) == Restarts()


def test_what_the_other_one_has_just_tried_is_not_tried_again_at_once(home: Path) -> None:
    PlatformState().with_service(dead_service(home, "agent")).write(home)
    seen = {"agent": 0}  # then waited for the lock, while the other one's try failed
    Restarts().with_restart(["agent"], time.time()).write(home)
    before, tried = PlatformState.read(home), Restarts.read(home)
    assert machine.revive(["agent"], seen) == []
    assert (PlatformState.read(home), Restarts.read(home)) == (before, tried)


def test_a_dead_database_is_taken_along_until_it_was_given_up(home: Path) -> None:
    for name in ("scheduler", "agent", "postgres"):
        PlatformState.read(home).with_service(dead_service(home, name)).write(home)
    here = machine.machine()
    assert machine._due(here, ["scheduler"], {}) == ["scheduler", "postgres"]
    assert machine._due(here, ["agent"], {}) == ["agent"]
    Restarts(made={"postgres": (time.time(),) * len(DELAYS)}).write(home)
    assert machine._due(here, ["scheduler"], {}) == ["scheduler"]


def test_nothing_is_started_where_its_port_is_held(home: Path) -> None:
    """What holds it may be the very process that was taken for dead."""
    PlatformState().with_service(dead_service(home, "object-store")).write(home)
    before = PlatformState.read(home)
    with (
        socket.create_server(("127.0.0.1", machine.machine().ports.s3_port)),
        pytest.raises(ConfigurationError, match="in use by another program"),
    ):
        machine.revive(["object-store"])
    assert PlatformState.read(home) == before


@pytest.mark.parametrize(
    "error",
    [
        psycopg2.OperationalError("no database"),
        subprocess.TimeoutExpired("airflow", 1),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        TryAgainError("not yet"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_goes_wrong_a_supervisor_looks_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    PlatformState().with_service(dead_service(home, "agent")).write(home)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(machine, "revive", fails)
    monkeypatch.setattr(supervisor, "DELAYS", (0.0,))
    assert Supervisor(home).look_on() == str(error)


def test_a_database_that_is_away_is_tried_again() -> None:
    with pytest.raises(TryAgainError, match="PostgreSQL does not answer"):
        postgres.create_database(free_port(), "secret")


def of(home: Path, name: str) -> Service:
    return PlatformState.read(home).services[name]


def back(home: Path, name: str, old: Service) -> bool:
    return of(home, name).pid != old.pid and of(home, name).lives()


@pytest.mark.slow
def test_a_dead_process_comes_back_and_so_does_a_dead_supervisor(home: Path) -> None:
    """The object store stands for all: what the supervisors start is the same `_start_missing` as `up`'s."""
    here = machine.machine()
    machine._start_missing(here, ["object-store", *SUPERVISORS], time.monotonic())
    store, deputy = of(home, "object-store"), of(home, "deputy")
    for service in (store, of(home, "supervisor")):
        os.kill(service.pid, signal.SIGKILL)
    old = of(home, "supervisor")
    wait_until(partial(back, home, "object-store", store), 40, "the object store")
    wait_until(partial(back, home, "supervisor", old), 40, "the supervisor")
    wait_until(lambda: port_is_open(here.ports.s3_port), 20, "its port")
    assert of(home, "deputy") == deputy and machine.status()["supervised"]
    assert Restarts.read(home).of("object-store", time.time()) == 1, "two supervisors, one restart"

    processes = [p for service in PlatformState.read(home).services.values() for p in service.processes()]
    machine.down()
    left = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert left == [] and not machine.status()["supervised"]
