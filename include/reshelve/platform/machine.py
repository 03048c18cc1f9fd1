"""The platform of one machine: start it, look at it, stop it.

`up` may be called at any time: what runs stays as it is, what died is started again. Between two calls its two supervisors
do that (`supervisor.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from subprocess import Popen
from typing import Any

from reshelve.agent.readiness import unanswered
from reshelve.errors import AlreadyRunningError, ConfigurationError, TryAgainError
from reshelve.files import take_lock
from reshelve.logs import logger
from reshelve.platform import airflow, postgres, seaweedfs, serving
from reshelve.platform.configuration import Machine, machine
from reshelve.platform.holdings import environment_of
from reshelve.platform.new_keys import keys_are_new, make_keys, take_over
from reshelve.platform.port_checks import PORTS, address_of, check_ports, check_same_ports, taken_ports
from reshelve.platform.services import PlatformState, Service, log_tail, memory_mib
from reshelve.platform.supervisor import COMMAND as SUPERVISOR
from reshelve.platform.supervisor import DELAYS, SUPERVISORS, Restarts, given_up
from reshelve.processes import port_is_open, start, wait_until
from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore
from reshelve.store.prepare import prepare_store

# In the order of starting; stopped the other way round.
SERVICES = ("postgres", "object-store", *airflow.PROCESSES, *serving.PROCESSES)

_HEALTH_SECONDS = (
    15  # an API server that draws its first pages on a busy machine answers late, but it answers
)
_LABEL_SECONDS = 60.0
_FREE_BYTES_NEEDED = 2 * 2**30


def up() -> dict[str, Any]:
    """Start what does not run, wait until all of it is healthy, and answer `status()`.

    Raises ConfigurationError (a port in use, a full disk) and TryAgainError (a service that does not start).
    """
    here = machine()
    here.home.mkdir(parents=True, exist_ok=True)
    with _only_one(here):
        began = time.monotonic()
        log = logger(stage="platform")
        Restarts.forget(here.home)
        missing = [name for name in (*SERVICES, *SUPERVISORS) if not _lives(here, name)]
        check_same_ports(here, missing)
        if not missing and _healthy(here):
            log.info("the platform runs already", airflow=here.airflow_url)
            return status()
        _check_disk(here)
        make_keys(here.home)
        for name in missing:
            _stop_leftovers(here, name)
        check_ports(here, missing)
        here.write_environment_file()
        if set(missing) & set(SERVICES):  # what the supervisors start again is to have the same environment
            _stop_all(
                [PlatformState.read(here.home).services[name] for name in SUPERVISORS if name not in missing]
            )
            missing += [name for name in SUPERVISORS if name not in missing]
        _start_missing(here, missing, began)
        _wait_for_health(here, began)
        _wait_for_labels(here)
        died = [name for name in SUPERVISORS if not _lives(here, name)]
        _start_missing(here, died, began)  # they wait for this lock to help each other
        log.info("the platform is up", seconds=round(time.monotonic() - began, 1), airflow=here.airflow_url)
    return status()


def down() -> None:
    """Stop everything that `up` started: each process group has ten seconds, then it is killed."""
    here = machine()
    if not here.home.is_dir():
        return
    _stop_all(
        [s for name, s in PlatformState.read(here.home).services.items() if name in SUPERVISORS]
    )  # at once
    with _only_one(here):
        state = PlatformState.read(here.home)  # one of them may have been starting the other one
        log = logger(stage="platform")
        _stop_all([s for name, s in state.services.items() if name not in ("postgres", "object-store")])
        if "postgres" in state.services:
            postgres.stop_postgres(state.services["postgres"])
        for service in state.services.values():
            service.stop()
        PlatformState().write(here.home)
        log.info("the platform is stopped", services=len(state.services))


def status() -> dict[str, Any]:
    """Every service with its state (running, unhealthy, dead or stopped), pid, address, start and memory; `healthy` for all.

    Unhealthy: its process lives, but its health check fails. `supervised`: what dies is started again. `restarts`: how
    often one was, within the last hour.
    """
    here = machine()
    state = PlatformState.read(here.home)
    restarts, now = Restarts.read(here.home), time.time()
    checks = _checks(here)
    services = {
        name: _describe(state.services.get(name), restarts.of(name, now), checks[name]) for name in SERVICES
    }
    return {
        "healthy": all(service["state"] == "running" for service in services.values()),
        "supervised": any(_lives(here, name) for name in SUPERVISORS),
        "home": str(here.home),
        "airflow": here.airflow_url,
        "services": services,
        "memory_mib": sum(service.get("memory_mib", 0) for service in services.values()),
    }


def environment() -> dict[str, str]:
    """The variables that reach this machine's platform."""
    return machine().environment()


def revive(names: Collection[str], seen: Mapping[str, int] | None = None) -> list[str]:
    """Start again those of `names` that were started and have died; returns them. What `down` stopped stays stopped.

    `seen`: how often each had been started again when the caller found it dead. Where somebody else has tried since, the
    next try is not due yet. A dead database is taken along where a part of Airflow is due.

    Does not wait for health. Raises ReshelveError where one does not start, ConfigurationError where another program, or
    one that was taken for dead, holds its port.
    """
    here = machine()
    with _only_one(here):
        dead = _due(here, names, seen or {})
        if not dead:
            return []
        Restarts.read(here.home).with_restart(dead, time.time()).write(here.home)
        for name in dead:
            _stop_leftovers(here, name)
        free = [name for name in dead if not taken_ports(here, name)]
        _start_missing(here, free, time.monotonic())
        check_ports(here, [name for name in dead if name not in free])
    return dead


def _due(here: Machine, names: Collection[str], seen: Mapping[str, int]) -> list[str]:
    """What `revive` starts."""
    known, restarts, now = PlatformState.read(here.home).services, Restarts.read(here.home), time.time()

    def dead(name: str) -> bool:
        return name in known and not known[name].lives()

    due = [name for name in names if dead(name) and restarts.of(name, now) <= seen.get(name, sys.maxsize)]
    if set(due) & set(airflow.PROCESSES) and "postgres" not in due and dead("postgres"):
        due += ["postgres"] if restarts.delay("postgres", now) is not None else []
    return due


def _stop_all(services: Sequence[Service]) -> None:
    with ThreadPoolExecutor(max_workers=len(SERVICES) + len(SUPERVISORS)) as pool:
        list(pool.map(Service.stop, services))


def _start_missing(here: Machine, missing: list[str], began: float) -> None:
    """Storage first, then the database's tables, then everything that needs them."""
    environment = here.environment()
    secrets = here.secrets
    log = logger(stage="platform")

    for name in [name for name in missing if name in SUPERVISORS]:
        _start_process(here, name, SUPERVISOR, {**os.environ, **environment})
    if "postgres" in missing:
        port, keep = here.ports.postgres_port, partial(_record, here, "postgres")
        postgres.start_postgres(
            here.postgres, port, secrets.postgres_password, here.logs / "postgres.log", keep
        )
        log.info("started", service="postgres", elapsed=_elapsed(began))
    if "object-store" in missing:
        port, keep = here.ports.s3_port, partial(_record, here, "object-store")
        seaweedfs.start_seaweedfs(here.store, port, here.logs / "object-store.log", keep)
        log.info("started", service="object-store", elapsed=_elapsed(began))
        _create_bucket(environment)
    if keys_are_new(here.home):
        take_over(here.home, _create_bucket(environment))
    # The model server and its agent need no database: they boot while it is being migrated.
    for name in [name for name in missing if name in serving.PROCESSES]:
        own = environment_of(name, here) | serving.process_environment(name, here)
        _start_process(here, name, serving.process_command(name, here), own)
    if not {"postgres", *airflow.PROCESSES} & set(missing):
        return
    postgres.create_database(here.ports.postgres_port, secrets.postgres_password)
    if airflow.prepare(here, environment):
        log.info("the database is migrated", elapsed=_elapsed(began))
    for name in [name for name in missing if name in airflow.PROCESSES]:
        _start_process(here, name, airflow.process_command(name), environment_of(name, here))
    if airflow.apply_settings(here, environment):
        log.info("airflow_settings.yaml is applied", elapsed=_elapsed(began))


def _start_process(here: Machine, name: str, command: list[str], environment: Mapping[str, str]) -> None:
    log = here.logs / f"{name}.log"
    start(command, log, env=environment, cwd=PROJECT, keep=partial(_record, here, name), inherit=False)


def _record(here: Machine, name: str, process: Popen[bytes]) -> None:
    service = Service.of(name, process, here.logs / f"{name}.log", address_of(here, name))
    PlatformState.read(here.home).with_service(service).write(here.home)


def _create_bucket(environment: Mapping[str, str]) -> ObjectStore:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    wait_until(lambda: _answers(client), 30, "the object store (SeaweedFS)")
    return prepare_store(ObjectStore(settings().bucket, client))


def _answers(client: Any) -> bool:
    """Its port opens a moment before the store can list buckets."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def _wait_for_health(here: Machine, began: float) -> None:
    """Wait for every health check; a service that died, or is not healthy in five minutes, is named with its log."""
    deadline = time.monotonic() + 300
    told = time.monotonic()
    while not _healthy(here):
        state = PlatformState.read(here.home)
        for name in SERVICES:
            if not state.services[name].lives():
                log = state.services[name].log
                raise TryAgainError(f"{name} ended while it started; see {log}", log_tail(log))
        if time.monotonic() > deadline:
            raise TryAgainError(
                "the platform was not healthy within 300 s", json.dumps(_airflow_health(here))
            )
        if time.monotonic() - told > 5:
            told = time.monotonic()
            waiting = [name for name, fine in _checks(here).items() if not fine]
            logger(stage="platform").info("waiting", on=", ".join(waiting), elapsed=_elapsed(began))
        time.sleep(0.3)


def _wait_for_labels(here: Machine) -> None:
    """Give the model server time to answer what was released; one that does not is no reason to be without a platform."""
    rest = f"127.0.0.1:{here.ports.rest_port}"
    deadline = time.monotonic() + _LABEL_SECONDS
    while (missing := unanswered(here.models, rest)) and time.monotonic() < deadline:
        time.sleep(0.3)
    if missing:
        logger(stage="platform").warning("the model server does not answer yet", labels=missing)


def _healthy(here: Machine) -> bool:
    return all(_checks(here).values())


def _checks(here: Machine) -> dict[str, bool]:
    """Every service's health check."""
    health = _airflow_health(here)
    ports = {
        name: all(port_is_open(getattr(here.ports, port)) for port in fields)
        for name, fields in PORTS.items()
    }
    ports["api-server"] = bool(health)
    for name, key in (
        ("scheduler", "scheduler"),
        ("dag-processor", "dag_processor"),
        ("triggerer", "triggerer"),
    ):
        ports[name] = health.get(key, {}).get("status") == "healthy"
    return ports | {"agent": _lives(here, "agent")}


def _airflow_health(here: Machine) -> dict[str, Any]:
    """What the API server says of Airflow's parts; empty while it does not answer."""
    try:
        with urllib.request.urlopen(
            f"{here.airflow_url}/api/v2/monitor/health", timeout=_HEALTH_SECONDS
        ) as answer:
            return dict(json.load(answer))
    except (urllib.error.URLError, OSError, ValueError):
        return {}


def _describe(service: Service | None, restarts: int, healthy: bool) -> dict[str, Any]:
    if service is None:
        return {"state": "stopped"}
    if not service.lives():
        note = given_up(restarts) if restarts >= len(DELAYS) else ""
        return {
            "state": "dead", "pid": service.pid, "log": str(service.log), "restarts": restarts, "note": note,
        }  # fmt: skip
    return {
        "state": "running" if healthy else "unhealthy", "pid": service.pid,
        "address": service.address, "since": service.since,
        "memory_mib": memory_mib(service), "log": str(service.log), "restarts": restarts,
    }  # fmt: skip


def _lives(here: Machine, name: str) -> bool:
    service = PlatformState.read(here.home).services.get(name)
    return service is not None and service.lives()


def _stop_leftovers(here: Machine, name: str) -> None:
    """End what a killed service left behind (the tasks of a scheduler), so that nothing is done twice."""
    service = PlatformState.read(here.home).services.get(name)
    if service is not None:
        logger(stage="platform").info("it died, starting it again", service=name)
        service.stop()


def _check_disk(here: Machine) -> None:
    free = shutil.disk_usage(here.home).free
    if free < _FREE_BYTES_NEEDED:
        raise ConfigurationError(
            f"the disk is full: {free / 2**30:.1f} GB are free at {here.home}, {_FREE_BYTES_NEEDED / 2**30:g} GB are needed",
            "free some space, or set RESHELVE_HOME to a directory on another disk",
        )


@contextmanager
def _only_one(here: Machine) -> Iterator[None]:
    """One `up` or `down` at a time for this home; the second waits for the first."""
    with (here.home / ".platform.lock").open("w") as handle:
        if not take_lock(handle, wait_seconds=240):
            raise AlreadyRunningError("another command starts or stops this platform")
        yield


def _elapsed(began: float) -> str:
    return f"{time.monotonic() - began:.0f}s"


__all__ = ["SERVICES", "down", "environment", "revive", "status", "up"]
