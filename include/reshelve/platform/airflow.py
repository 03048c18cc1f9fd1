"""Airflow on one machine: four processes, each the leader of its own session, all on loopback.

`airflow standalone` is not used: a SIGTERM to it orphans its components.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reshelve.errors import TryAgainError
from reshelve.files import write_private
from reshelve.platform.configuration import USERS
from reshelve.platform.postgres import database_url
from reshelve.processes import guarded
from reshelve.settings import PROJECT

if TYPE_CHECKING:
    from reshelve.platform.configuration import Machine

SIMPLE = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"

# `--skip-serve-logs`: the log servers would listen on every interface. The API server reads the logs
# of this machine from their files.
PROCESSES = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


def airflow_environment(machine: Machine) -> dict[str, str]:
    """Airflow's settings, as environment variables: nothing is read from a person's own airflow.cfg."""
    secrets = machine.secrets
    port = machine.ports.airflow_port
    return {
        "AIRFLOW_HOME": str(machine.airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "12",  # pools bound what computes; the others wait, and must not keep a rollback back
        "AIRFLOW__CORE__FERNET_KEY": secrets.fernet_key,
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks DNS, which may hang
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{machine.airflow_url}/execution/",
        # The log-in of one machine, whatever the shell says for another Airflow: nights are asked for with its passwords.
        "AIRFLOW__CORE__AUTH_MANAGER": SIMPLE,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role}" for user, role in USERS.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(machine.passwords_file),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(
            machine.ports.postgres_port, secrets.postgres_password
        ),
        # Airflow gives its task logs these modes itself, whatever the umask: they repeat what verbs say.
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": machine.airflow_url,
        "AIRFLOW__API__SECRET_KEY": secrets.api_secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.jwt_secret,
        # At 0.1 an idle scheduler took a fifth of a core, at the default of 1 a night of short tasks waits.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # After a scheduler is killed, its tasks are found and tried again within two minutes, not ten.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "90",
        # A task whose last words come a moment before its process ends is seen to be over at the next beat, which at the
        # default of 5 s made every third task of a night wait. Beats that fail in a row end the task: with the default of
        # three, an API server that is started again would end every training.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
        # At the default of 30 s reading what did not change took a tenth of a core, day and night. A new ranker is to have
        # its DAGs within a minute.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "45",
    }


def prepare(machine: Machine, environment: dict[str, str]) -> bool:
    """Write the log-ins and migrate the database, once per Airflow version. Returns whether it migrated.

    Raises TryAgainError with the end of the output.
    """
    write_private(machine.passwords_file, json.dumps(machine.secrets.passwords))
    return _once(
        machine.airflow / ".migrated",
        _airflow_version(),
        [str(_command()), "db", "migrate"],
        environment,
        "Airflow's database could not be migrated",
    )


def apply_settings(machine: Machine, environment: dict[str, str]) -> bool:
    """Apply airflow_settings.yaml (pools, variables, connections), again whenever the file changes."""
    path = PROJECT / "airflow_settings.yaml"
    if not path.is_file():
        return False  # a project may keep its pools and connections elsewhere
    return _once(
        machine.airflow / ".settings",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        [sys.executable, "-m", "reshelve_airflow.settings_file", str(path)],
        environment,
        f"{path.name} could not be applied",
    )


def process_command(name: str) -> list[str]:
    """The command of one of Airflow's four processes."""
    return [str(_command()), *PROCESSES[name]]


def _once(marker: Path, key: str, command: list[str], environment: dict[str, str], failure: str) -> bool:
    """Run `command` unless `marker` says that it was done for `key`."""
    if marker.is_file() and marker.read_text() == key:
        return False
    done = subprocess.run(
        guarded(command),
        env={**os.environ, **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise TryAgainError(failure, (done.stdout + done.stderr)[-3000:])
    marker.write_text(key)
    return True


def _airflow_version() -> str:
    from importlib.metadata import version

    return version("apache-airflow")


def _command() -> Path:
    return Path(sys.executable).with_name("airflow")
