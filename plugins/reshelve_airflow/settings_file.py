"""Apply an airflow_settings.yaml (Astro's format) with Airflow's own import commands.

    python -m reshelve_airflow.settings_file airflow_settings.yaml

One process per kind, side by side; a kind with no entries costs nothing. Passwords are refused: they belong
into environment variables (`AIRFLOW_CONN_<ID>`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from reshelve.config.yaml_models import Form, load_form
from reshelve.errors import ReshelveError, TryAgainError
from reshelve.processes import guarded

SECONDS = 180
_SECRET_WORDS = ("password", "secret", "token", "api_key", "private_key")


class Connection(Form):
    """One entry of `connections`."""

    conn_id: str = Field(min_length=1)
    conn_type: str = Field(min_length=1)
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_port: int | None = None
    conn_extra: dict[str, Any] | str | None = None

    @field_validator("conn_extra")
    @classmethod
    def _holds_no_secret(cls, extra: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
        text = extra if isinstance(extra, str) else json.dumps(extra or {})
        found = [word for word in _SECRET_WORDS if word in text.lower()]
        if found:
            raise ValueError(f"looks like a secret ({found[0]}): put it into AIRFLOW_CONN_<ID> instead")
        return extra


class PoolSettings(Form):
    """One entry of `pools`."""

    pool_name: str = Field(min_length=1)
    pool_slot: int = Field(ge=-1)
    pool_description: str = ""
    pool_include_deferred: bool = False


class Variable(Form):
    """One entry of `variables`."""

    variable_name: str = Field(min_length=1)
    variable_value: Any


class Airflow(Form):
    """What the file holds."""

    connections: tuple[Connection, ...] = ()
    pools: tuple[PoolSettings, ...] = ()
    variables: tuple[Variable, ...] = ()


class SettingsFile(Form):
    """The whole file."""

    airflow: Airflow

    def imports(self) -> dict[str, Any]:
        """Per Airflow command that has something to import, the JSON it reads."""
        kinds = {
            "connections": {c.conn_id: _connection(c) for c in self.airflow.connections},
            "pools": {
                p.pool_name: {
                    "slots": p.pool_slot,
                    "description": p.pool_description,
                    "include_deferred": p.pool_include_deferred,
                }
                for p in self.airflow.pools
            },
            "variables": {v.variable_name: v.variable_value for v in self.airflow.variables},
        }
        return {kind: entries for kind, entries in kinds.items() if entries}


def apply(path: Path) -> list[str]:
    """Import the file into Airflow's database; says what was done.

    Raises ConfigurationError for a wrong file, TryAgainError where Airflow refuses.
    """
    imports = load_form(SettingsFile, path).imports()
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(max_workers=len(imports) or 1) as workers,
    ):
        return list(workers.map(lambda kind: _import(kind, imports[kind], Path(folder)), imports))


def _import(kind: str, entries: dict[str, Any], folder: Path) -> str:
    file = folder / f"{kind}.json"
    file.write_text(json.dumps(entries))
    # A connection or a variable that exists keeps its old value unless told otherwise; a pool is always replaced.
    replace = {
        "connections": ["--overwrite"],
        "variables": ["--action-on-existing-key", "overwrite"],
        "pools": [],
    }
    command = [sys.executable, "-m", "airflow", kind, "import", str(file), *replace[kind]]
    try:
        done = subprocess.run(guarded(command), capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TryAgainError(f"airflow {kind} import took more than {SECONDS} s") from error
    if done.returncode != 0:
        raise TryAgainError(f"airflow {kind} import failed", (done.stderr or done.stdout)[-2000:])
    return f"{kind}: {', '.join(entries)}"


def _connection(connection: Connection) -> dict[str, Any]:
    extra = connection.conn_extra
    fields = {
        "conn_type": connection.conn_type,
        "host": connection.conn_host,
        "schema": connection.conn_schema,
        "login": connection.conn_login,
        "port": connection.conn_port,
        "extra": json.dumps(extra) if isinstance(extra, dict) else extra,
    }
    return {name: value for name, value in fields.items() if value is not None}


def main() -> None:
    """The command."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reshelve_airflow.settings_file airflow_settings.yaml")
    try:
        for line in apply(Path(sys.argv[1])):
            sys.stdout.write(line + "\n")
    except ReshelveError as error:
        sys.stderr.write(f"reshelve: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
