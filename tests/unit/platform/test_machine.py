"""What goes wrong when the platform starts is said in a person's words."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import psutil
import pytest

from reshelve.errors import ConfigurationError
from reshelve.platform import machine, postgres, seaweedfs
from reshelve.platform.configuration import Ports
from reshelve.platform.services import PlatformState, Service
from reshelve.processes import free_port, stop_group
from reshelve.settings import settings

pytestmark = pytest.mark.slow  # starts processes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    for name in Ports.model_fields:
        monkeypatch.setenv(f"RESHELVE_{name.upper()}", str(free_port()))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


def test_a_port_in_use_is_named_with_the_setting_that_changes_it(home: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        os.environ["RESHELVE_AIRFLOW_PORT"] = str(port)
        with pytest.raises(ConfigurationError) as raised:
            machine.up()
    assert "a port is in use" in raised.value.headline
    assert f"port {port} (api-server): set RESHELVE_AIRFLOW_PORT" in raised.value.detail
    assert PlatformState.read(home).services == {}


def test_a_full_disk_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_FREE_BYTES_NEEDED", 2**60)
    with pytest.raises(ConfigurationError, match="the disk is full"):
        machine.up()


def test_a_port_does_not_move_under_a_running_service(home: Path) -> None:
    home.mkdir()
    me = psutil.Process()
    service = Service(
        name="api-server", pid=me.pid, created=me.create_time(), log=home / "log", address="127.0.0.1:1"
    )
    PlatformState(services={"api-server": service}).write(home)
    with pytest.raises(ConfigurationError, match="would have to move") as raised:
        machine.up()
    assert "make stop" in raised.value.detail


def test_what_is_started_anew_gets_supervisors_with_the_same_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would start it again with what they were started with themselves; dead ones would leave all to chance."""
    here, asked = machine.machine(), []
    home.mkdir()
    for name in (*machine.SERVICES, *machine.SUPERVISORS):
        machine._start_process(here, name, ["sleep", "60"], {})
    before = PlatformState.read(home).services
    before["agent"].stop()

    def start_missing(_: object, names: list[str], *__: object, **___: object) -> None:
        asked.append(sorted(names))

    monkeypatch.setattr(machine, "_start_missing", start_missing)
    monkeypatch.setattr(machine, "_wait_for_health", lambda *_: None)
    monkeypatch.setattr(machine, "_wait_for_labels", lambda *_: None)
    try:
        machine.up()
        assert asked == [["agent", "deputy", "supervisor"], ["deputy", "supervisor"]]
        assert not any(before[name].lives() for name in machine.SUPERVISORS)
    finally:
        machine.down()


def test_before_the_first_start_everything_is_stopped(home: Path) -> None:
    found = machine.status()
    assert not found["healthy"]
    assert {service["state"] for service in found["services"].values()} == {"stopped"}
    machine.down()
    assert not home.exists()


def test_postgres_keeps_its_data_through_a_kill(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    first = postgres.start_postgres(tmp_path / "pg", port, "secret", log)
    try:
        postgres.create_database(port, "secret")
        postgres.create_database(port, "secret")
    finally:
        first.kill()
        first.wait()
    second = postgres.start_postgres(tmp_path / "pg", port, "secret", log)
    service = Service.of("postgres", second, log)
    try:
        with postgres._connect(port, "secret").cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_database WHERE datname = %s", (postgres.DATABASE,))
            assert cursor.fetchone() == (1,)
        with pytest.raises(Exception, match="password authentication failed"):
            postgres._connect(port, "wrong")
        postgres.stop_postgres(service)
        assert not service.lives()
    finally:
        stop_group(second.pid)


def test_a_port_that_another_process_took_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", seaweedfs._low_port())) as other:
        handed_out = chain([other.getsockname()[1]], iter(free_port, None))
        monkeypatch.setattr(seaweedfs, "free_port", lambda: next(handed_out))
        process = seaweedfs.start_seaweedfs(tmp_path / "store", free_port(), tmp_path / "log")
        try:
            assert process.poll() is None
            assert "Port allocation failed" in (tmp_path / "log").read_text()
        finally:
            stop_group(process.pid)
