"""The platform of one machine as a person uses it: up, look, break, up again, down. By the command, in its own processes."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from reshelve.platform import seaweedfs
from reshelve.platform.configuration import Machine, Ports, read_environment_file
from reshelve.platform.holdings import AIRFLOWS, IDENTITY
from reshelve.platform.identities import IDENTITIES
from reshelve.platform.services import PlatformState, Service, memory_mib
from reshelve.platform.supervisor import SUPERVISORS
from reshelve.processes import free_port, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]

SERVICES = (
    "postgres",
    "object-store",
    "api-server",
    "scheduler",
    "dag-processor",
    "triggerer",
    "model-server",
    "agent",
)


class Shell:
    """A person's shell: no variable of another platform, only a home and ports of its own."""

    def __init__(self, home: Path) -> None:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RESHELVE_", "AIRFLOW"))
        }
        ports = {f"RESHELVE_{name.upper()}": str(free_port()) for name in Ports.model_fields}
        self.home = home
        self.environment: Mapping[str, str] = {**inherited, **ports, "RESHELVE_HOME": str(home)}

    def reshelve(self, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("reshelve"), *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    def status(self, *, healthy: bool) -> dict[str, Any]:
        done = self.reshelve("platform", "status", "--json", fails=not healthy)
        return dict(json.loads(done.stdout))

    def is_healthy(self) -> bool:
        """Whether all of it is; without an opinion of what it should be."""
        command = [Path(sys.executable).with_name("reshelve"), "platform", "status"]
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=60, check=False)
        return done.returncode == 0


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(tmp_path_factory.mktemp("platform") / "home")
    try:
        made.reshelve("platform", "up")
        yield made
    finally:
        made.reshelve("platform", "down")


def test_everything_is_healthy(shell: Shell) -> None:
    found = shell.status(healthy=True)
    assert tuple(found["services"]) == SERVICES
    assert {service["state"] for service in found["services"].values()} == {"running"}


def _listeners(service: Service) -> list[tuple[str, int]]:
    """(address, port) of every TCP socket that a service or a descendant listens on."""
    found: list[tuple[str, int]] = []
    for process in service.processes():
        try:
            sockets = process.net_connections(kind="inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found += [(s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN]
    return sorted(set(found))


def test_everything_listens_on_loopback_only(shell: Shell) -> None:
    seen = 0
    for service in PlatformState.read(shell.home).services.values():
        for address, port in _listeners(service):
            ip = ipaddress.ip_address(address)
            mapped = getattr(ip, "ipv4_mapped", None) or ip
            assert mapped.is_loopback, f"{service.name} listens on {address}:{port}"
            seen += 1
    assert seen >= 5


def test_it_leaves_room_for_the_work_on_a_machine_of_8_gb(shell: Shell) -> None:
    assert sum(memory_mib(service) for service in PlatformState.read(shell.home).services.values()) < 2500


def test_secrets_are_private_and_no_log_has_one(shell: Shell) -> None:
    secrets = Machine(shell.home).secrets
    for name in ("env", "airflow/secrets.json", "airflow/passwords.json", "seaweedfs/s3.json"):
        assert (shell.home / name).stat().st_mode & 0o077 == 0, name
    words = [secrets.jwt_secret, secrets.postgres_password, *secrets.passwords.values()]
    for log in (shell.home / "logs").iterdir():
        text = log.read_text(errors="replace")
        assert not [word for word in words if word in text], log


def test_each_process_has_the_key_of_its_own_identity_alone(shell: Shell) -> None:
    store = Machine(shell.home).store
    owners = {seaweedfs.credentials(store, name).secret_key: name for name in IDENTITIES}
    for name, service in PlatformState.read(shell.home).services.items():
        if name in IDENTITY:
            given = psutil.Process(service.pid).environ().values()
            found, own = {owners[value] for value in given if value in owners}, {IDENTITY[name]} - {None}
            # PostgreSQL and Airflow write their titles where their environment was.
            assert found <= own if name in ("postgres", *AIRFLOWS) else found == own, name


def test_strangers_are_refused(shell: Shell) -> None:
    environment = read_environment_file(shell.home / "env")
    api = environment["AIRFLOW__API__BASE_URL"]
    for url in (f"{api}/api/v2/dags", f"{environment['AWS_ENDPOINT_URL']}/reshelve"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)
        assert refused.value.code in (401, 403), url


def test_up_again_changes_nothing(shell: Shell) -> None:
    before = PlatformState.read(shell.home)
    done = shell.reshelve("platform", "up")
    assert "runs already" in done.stderr
    assert PlatformState.read(shell.home) == before


def test_a_verb_finds_the_platform_by_itself(shell: Shell) -> None:
    done = shell.reshelve("status", "--json")
    assert json.loads(done.stdout) is not None


def test_a_process_that_lives_but_does_not_answer_is_named(shell: Shell) -> None:
    processes = PlatformState.read(shell.home).services["api-server"].processes()
    for process in processes:
        process.suspend()
    try:
        services = shell.status(healthy=False)["services"]
    finally:
        for process in processes:
            process.resume()
    assert services["api-server"]["state"] == "unhealthy"
    assert services["model-server"]["state"] == "running"
    wait_until(shell.is_healthy, 60, "the platform", every=1)


@pytest.mark.parametrize("name", ["scheduler", "model-server", "object-store"])
def test_what_is_killed_comes_back_by_itself(shell: Shell, name: str) -> None:
    before = PlatformState.read(shell.home).services
    os.kill(before[name].pid, signal.SIGKILL)
    wait_until(lambda: PlatformState.read(shell.home).services[name].pid != before[name].pid, 60, name)
    wait_until(shell.is_healthy, 180, "the platform", every=1)
    after = PlatformState.read(shell.home).services
    assert all(after[other] == before[other] for other in SERVICES if other != name)


def test_up_brings_the_supervisors_back_where_both_died_at_once(shell: Shell) -> None:
    before = PlatformState.read(shell.home).services
    for name in SUPERVISORS:
        os.kill(before[name].pid, signal.SIGKILL)
    assert shell.status(healthy=True)["supervised"] is False
    shell.reshelve("platform", "up")
    assert shell.status(healthy=True)["supervised"] is True
    after = PlatformState.read(shell.home).services
    assert all(after[name] == before[name] for name in SERVICES)


def test_down_leaves_no_process(shell: Shell) -> None:
    processes = [
        p for service in PlatformState.read(shell.home).services.values() for p in service.processes()
    ]
    assert len(processes) >= len(SERVICES) + len(SUPERVISORS)
    shell.reshelve("platform", "down")
    left = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    shell.status(healthy=False)
    shell.reshelve("platform", "down")  # again: nothing to do
