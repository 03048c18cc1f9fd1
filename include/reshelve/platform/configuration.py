"""What the platform of one machine is made of: its ports, its secrets, and the environment that reaches it all."""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import sys
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from reshelve.files import write_private
from reshelve.platform import seaweedfs
from reshelve.settings import PROJECT, read_settings, settings

# Roles of the log-ins that are made: viewer < user < op < admin.
USERS = {"admin": "admin", "analyst": "user", "viewer": "viewer"}

# One of these in the shell means that somebody has said already which S3 to use.
_S3_IS_CHOSEN = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")


class Ports(BaseSettings):
    """The TCP ports of 127.0.0.1 that people use; each is the environment variable `RESHELVE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="RESHELVE_", frozen=True, extra="ignore")

    airflow_port: int = Field(8080, ge=1, le=65535, description="Airflow's pages and REST API.")
    s3_port: int = Field(8333, ge=1, le=65535, description="The object store.")
    postgres_port: int = Field(54330, ge=1, le=65535, description="Airflow's database.")
    grpc_port: int = Field(8500, ge=1, le=65535, description="The model server's gRPC.")
    rest_port: int = Field(8501, ge=1, le=65535, description="The model server's REST.")


class Secrets(BaseModel):
    """Made once for this machine, never shown but for the log-in."""

    model_config = ConfigDict(frozen=True)

    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    postgres_password: str
    passwords: dict[str, str]
    start_date: date

    @classmethod
    def make(cls) -> Secrets:
        """New ones; the start date is today (UTC), so that no night before the set-up is ever scheduled."""
        return cls(
            fernet_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
            jwt_secret=secrets.token_hex(64),
            api_secret_key=secrets.token_hex(32),
            postgres_password=secrets.token_hex(16),
            passwords={user: secrets.token_urlsafe(9) for user in USERS},
            start_date=datetime.now(UTC).date(),
        )


class Machine:
    """The platform's places and settings under one home directory."""

    def __init__(self, home: Path, ports: Ports | None = None) -> None:
        self.home = home.absolute()
        self.ports = ports or read_settings(Ports)

    @property
    def logs(self) -> Path:
        """One log file per service."""
        return self.home / "logs"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.home / "airflow"

    @property
    def postgres(self) -> Path:
        """The database's files."""
        return self.home / "postgres"

    @property
    def store(self) -> Path:
        """The object store's files."""
        return self.home / "seaweedfs"

    @property
    def models(self) -> Path:
        """The directory that the model server watches and the agent fills."""
        return self.home / "serving" / "models"

    @property
    def environment_file(self) -> Path:
        """`set -a; . <home>/env` lets a shell use `reshelve` and `airflow` on this platform."""
        return self.home / "env"

    @property
    def passwords_file(self) -> Path:
        """The log-ins of Airflow's pages, for people: JSON, mode 0600."""
        return self.airflow / "passwords.json"

    @property
    def airflow_url(self) -> str:
        """Airflow's pages."""
        return f"http://127.0.0.1:{self.ports.airflow_port}"

    @cached_property
    def secrets(self) -> Secrets:
        """This machine's secrets, made at the first call and kept with mode 0600."""
        path = self.airflow / "secrets.json"
        if not path.is_file():
            write_private(path, Secrets.make().model_dump_json(indent=1))
        return Secrets.model_validate_json(path.read_text())

    def environment(self) -> dict[str, str]:
        """Everything a verb, an Airflow process or a person's shell needs to reach this platform."""
        from reshelve.platform.airflow import airflow_environment

        ports = self.ports
        return {
            **seaweedfs.environment(ports.s3_port, seaweedfs.credentials(self.store)),
            "RESHELVE_HOME": str(self.home),
            "RESHELVE_START_DATE": self.secrets.start_date.isoformat(),
            "RESHELVE_MODEL_SERVER": f"127.0.0.1:{ports.grpc_port}",
            "RESHELVE_MODEL_SERVER_REST": f"127.0.0.1:{ports.rest_port}",
            **{f"RESHELVE_{name.upper()}": str(port) for name, port in ports.model_dump().items()},
            "PATH": _path_with_this_environment(),
            "PYTHONPATH": str(PROJECT / "plugins"),
            **airflow_environment(self),
        }

    def write_environment_file(self) -> None:
        """Write the environment for shells (mode 0600: it holds secrets); their PATH keeps what it has."""
        environment = self.environment()
        commands = environment.pop("PATH").partition(os.pathsep)[0]
        lines = [f"{key}={shlex.quote(value)}\n" for key, value in environment.items()]
        lines.append(f'PATH={shlex.quote(commands)}"${{PATH:+:$PATH}}"\n')
        head = "# Made by `reshelve platform up`; for a shell:  set -a; . this file; set +a\n"
        write_private(self.environment_file, head + "".join(lines))


def machine() -> Machine:
    """The platform under this process's RESHELVE_HOME, with the ports it was last started with unless others are set."""
    home = settings().home
    remembered = read_environment_file(home / "env")
    known = {
        name: remembered[f"RESHELVE_{name.upper()}"]
        for name in Ports.model_fields
        if f"RESHELVE_{name.upper()}" in remembered
    }
    chosen: dict[str, Any] = {
        name: port for name, port in known.items() if f"RESHELVE_{name.upper()}" not in os.environ
    }
    return Machine(home, read_settings(Ports, **chosen))


def use_local_platform() -> None:
    """Point this process at the local platform, where there is one and nothing says otherwise.

    A shell that names an S3 of its own (endpoint, key or profile) keeps it; what is set already is never replaced.
    """
    if any(os.environ.get(name) for name in _S3_IS_CHOSEN):
        return
    for key, value in read_environment_file(settings().home / "env").items():
        os.environ.setdefault(key, value)
    settings.cache_clear()


def read_environment_file(path: Path) -> dict[str, str]:
    """`KEY='value'` lines; empty where there is no file. PATH is left out: it is only for a shell, which expands it."""
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and key != "PATH" and not key.startswith("#"):
            found[key] = "".join(shlex.split(value))
    return found


def _path_with_this_environment() -> str:
    """PATH with this environment's commands (`reshelve`, `airflow`, `horovodrun`) first."""
    commands = str(Path(sys.executable).parent)
    others = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != commands]
    return os.pathsep.join([commands, *others])
