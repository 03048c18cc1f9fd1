"""The machine's settings: secrets that stay, ports that are remembered, a shell that is respected."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from reshelve.errors import ConfigurationError
from reshelve.platform import configuration
from reshelve.platform.configuration import Machine, Ports, Secrets, read_environment_file, use_local_platform
from reshelve.platform.holdings import AIRFLOWS, environment_of
from reshelve.settings import read_settings, settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*os.environ]:
        if name.startswith(("AWS_", "RESHELVE_", "AIRFLOW__")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what the code sets ends with the test
    os.environ["RESHELVE_HOME"] = str(tmp_path / "home")
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


def test_secrets_are_made_once_and_private(home: Path) -> None:
    first = Machine(home).secrets
    assert Machine(home).secrets == first
    assert (home / "airflow" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(first.jwt_secret) >= 64


def test_no_two_machines_share_a_secret() -> None:
    one, other = Secrets.make(), Secrets.make()
    for field in ("fernet_key", "jwt_secret", "api_secret_key", "postgres_password"):
        assert getattr(one, field) != getattr(other, field)


@pytest.mark.slow
def test_a_shell_reads_the_environment_file_as_we_do(home: Path) -> None:
    machine = Machine(home)
    machine.write_environment_file()
    assert machine.environment_file.stat().st_mode & 0o777 == 0o600
    script = f"set -a; . {shlex.quote(str(machine.environment_file))}; env -0"
    output = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={}).stdout
    shell = dict(line.split("=", 1) for line in output.split("\0") if "=" in line)
    assert read_environment_file(machine.environment_file).items() <= shell.items()
    assert shell["AWS_ENDPOINT_URL"] == "http://127.0.0.1:8333"


@pytest.mark.slow
def test_a_shell_that_reads_the_file_finds_the_commands_and_keeps_its_own(home: Path) -> None:
    machine = Machine(home)
    machine.write_environment_file()
    script = f'set -a; . {shlex.quote(str(machine.environment_file))}; printf \'%s\\n%s\' "$(command -v reshelve)" "$PATH"'
    for own in ("/usr/bin:/bin", ""):
        output = subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": own}
        )
        found, path = output.stdout.split("\n")
        assert found == str(Path(sys.executable).with_name("reshelve"))
        assert path == str(Path(sys.executable).parent) + (f":{own}" if own else "")
    assert "PATH" not in read_environment_file(machine.environment_file)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RESHELVE_AIRFLOW_PORT", "http", "http: .*integer"),
        ("RESHELVE_SIGNATURES", "maybe", "maybe: .*'required' or 'off'"),
        ("RESHELVE_RELEASE_LEASE_SECONDS", "0", "0: .*greater than 0"),
        ("RESHELVE_HOME", __file__, ".*: expected a directory, there is a file"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    home: Path, name: str, value: str, said: str
) -> None:
    os.environ[name] = value
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match=f"^{name}={said}"):
        configuration.machine()


def test_a_wrong_secret_is_named_and_not_shown(home: Path) -> None:
    class Form(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="RESHELVE_")
        pseudonym_keys: SecretStr = Field(max_length=3)

    os.environ["RESHELVE_PSEUDONYM_KEYS"] = "a secret"
    with pytest.raises(ConfigurationError, match="RESHELVE_PSEUDONYM_KEYS: ") as raised:
        read_settings(Form)
    assert "a secret" not in str(raised.value)


def test_ports_stay_as_they_were_unless_the_shell_says_otherwise(home: Path) -> None:
    Machine(home, Ports(airflow_port=9090, s3_port=9333)).write_environment_file()
    os.environ["RESHELVE_S3_PORT"] = "9444"
    ports = configuration.machine().ports
    assert (ports.airflow_port, ports.s3_port) == (9090, 9444)


def test_a_shell_for_another_airflow_opens_no_door_of_this_one(home: Path) -> None:
    os.environ["AIRFLOW__CORE__AUTH_MANAGER"] = "some.company.AuthManager"
    os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "True"
    for service in AIRFLOWS:
        given = environment_of(service, Machine(home))
        assert given["AIRFLOW__CORE__AUTH_MANAGER"].endswith(".SimpleAuthManager")
        assert given["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"


def test_a_verb_finds_the_local_platform(home: Path) -> None:
    Machine(home, Ports(s3_port=9333)).write_environment_file()
    use_local_platform()
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9333"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"])
def test_a_shell_that_names_its_own_s3_keeps_it(home: Path, name: str) -> None:
    Machine(home).write_environment_file()
    os.environ[name] = "mine"
    use_local_platform()
    assert os.environ[name] == "mine"
    assert "RESHELVE_MODEL_SERVER" not in os.environ


def test_without_a_platform_nothing_is_set(home: Path) -> None:
    before = dict(os.environ)
    use_local_platform()
    assert dict(os.environ) == before
