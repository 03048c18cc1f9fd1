"""docker-compose.yaml cannot be started everywhere: its form, and every path, command and variable in it, are checked."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from reshelve.cli import app
from reshelve.platform.configuration import Machine, Ports
from reshelve.platform.identities import IDENTITIES
from reshelve.processes import free_port, port_is_open, stop_group
from reshelve.settings import PROJECT, Settings

COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXT = (PROJECT / "docker-compose.yaml").read_text()


def test_it_is_a_compose_file() -> None:
    """compose_spec.json is the Compose Specification's own schema (Apache-2.0), as shipped in docker-compose 1.29.2."""
    schema = json.loads(Path(__file__).with_name("compose_spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_paths_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (PROJECT / source).exists(), volume
        else:
            assert source in COMPOSE["volumes"], volume


@pytest.mark.parametrize("name", SERVICES)
def test_commands_exist(name: str) -> None:
    service = SERVICES[name]
    words = [*service.get("entrypoint", []), *service.get("command", [])]
    program = words[0] if words else ""
    if program == "reshelve":
        command: Any = typer.main.get_command(app)
        command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known
    elif program == "airflow":
        assert words[1] in ("api-server", "scheduler", "dag-processor", "triggerer")
    elif program == "sh" and words[1] != "-c":
        assert words[1].startswith(("/opt/reshelve/include/compose/", "/compose/")), words
        assert os.access(PROJECT / "include" / "compose" / Path(words[1]).name, os.X_OK), words


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_are_services_with_health_checks(name: str) -> None:
    wanted = SERVICES[name].get("depends_on") or {}
    for other in wanted:
        assert other in SERVICES
        if isinstance(wanted, dict) and wanted[other]["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "init"])
def test_every_long_running_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.slow
def test_required_variables_are_those_that_the_script_writes() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    printed = subprocess.run(
        [PROJECT / "scripts" / "compose_env.sh"], capture_output=True, text=True, check=True
    ).stdout
    written = dict(line.split("=", 1) for line in printed.splitlines())
    assert set(written) == required
    assert len(written["AIRFLOW_JWT_SECRET"]) >= 64
    assert all(written.values())


def test_whoever_logs_in_needs_the_password_of_the_environment_file() -> None:
    """Nobody is an administrator for nothing, and a company's own auth manager takes one line in .env."""
    environment = SERVICES["api-server"]["environment"]
    manager = environment["AIRFLOW__CORE__AUTH_MANAGER"]
    default = re.fullmatch(r"\$\{AIRFLOW_AUTH_MANAGER:-([\w.]+)\}", manager)
    assert default, manager
    module, _, name = default[1].rpartition(".")
    assert hasattr(importlib.import_module(module), name)
    assert environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert environment["AIRFLOW_PASSWORD"].startswith("${AIRFLOW_PASSWORD:?")
    for service in ("scheduler", "dag-processor", "triggerer"):
        assert SERVICES[service]["environment"]["AIRFLOW__CORE__AUTH_MANAGER"] == manager


@pytest.mark.parametrize(
    "name",
    ["scheduler", "gpu-scheduler"],
)
def test_whoever_sends_nights_to_mlflow_gets_the_log_in_of_the_environment_file(name: str) -> None:
    """An empty one is as none."""
    assert "RESHELVE_MLFLOW_TRACKING_URI" in SERVICES[name]["environment"]
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        assert SERVICES[name]["environment"][variable] == f"${{{variable}:-}}"


def test_no_service_is_given_a_token_in_plain_text() -> None:
    """The gateway's tokens are hashes in a file; an environment is readable by whoever may look at the container."""
    assert "RESHELVE_GATEWAY_TOKENS" not in (PROJECT / "scripts" / "compose_env.sh").read_text()
    given = {
        name
        for name, service in SERVICES.items()
        if "RESHELVE_GATEWAY_TOKENS" in service.get("environment", {})
    }
    assert given == {"gateway"}, "which refuses them"


def test_every_optional_variable_has_a_default() -> None:
    assert not re.search(r"(?<!\$)\$\{\w+\}", TEXT)


def test_every_reshelve_variable_is_a_setting() -> None:
    known = {f"RESHELVE_{name.upper()}" for form in (Settings, Ports) for name in form.model_fields}
    known |= {
        "RESHELVE_START_DATE",
        "RESHELVE_IMAGE",
        "RESHELVE_GPU_IMAGE",
        "RESHELVE_GPU_BASE",
        "RESHELVE_S3_",  # of the message for missing ones
        "RESHELVE_GATEWAY_PORT",
        "RESHELVE_GATEWAY_TOKENS",  # of older files: refused with what to do
        "RESHELVE_PROMETHEUS_PORT",
        "RESHELVE_GRAFANA_PORT",
        "RESHELVE_MEMORY",
        "RESHELVE_NIGHTS_MEMORY",
        "RESHELVE_SERVING_MEMORY",
    }
    known |= {f"RESHELVE_S3_{name.upper()}_{half}" for name in IDENTITIES for half in ("KEY", "SECRET")}
    assert set(re.findall(r"RESHELVE_\w+", TEXT)) <= known


def test_every_airflow_variable_is_an_option(tmp_path: Path) -> None:
    from airflow.configuration import conf

    local = Machine(tmp_path).environment()
    environment = SERVICES["scheduler"]["environment"]
    for name in {*local, *environment}:
        if name.startswith("AIRFLOW__"):
            _, section, option = name.split("__")
            assert option.lower() in conf.configuration_description[section.lower()]["options"], name


def test_what_the_image_copies_exists() -> None:
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _ = line.split()[1:]
            for source in sources:
                assert (PROJECT / source).exists(), line


@pytest.mark.slow
def test_the_object_store_script_starts_a_store_that_refuses_strangers(tmp_path: Path) -> None:
    import boto3
    from botocore.exceptions import ClientError

    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT / "include"),
        **{
            f"RESHELVE_S3_{one.upper()}_{half}": f"{one}-{half}"
            for one in IDENTITIES
            for half in ("KEY", "SECRET")
        },
        "RESHELVE_S3_ADMIN_KEY": "key",
        "RESHELVE_S3_ADMIN_SECRET": "secret",
        "STORE_DIRECTORY": str(tmp_path),
        "STORE_BIND": "127.0.0.1",
        "STORE_PORT": str(port),
    }
    script = PROJECT / "include" / "compose" / "object-store.sh"
    process = subprocess.Popen(
        ["sh", script], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not port_is_open(port) and time.monotonic() < deadline:
            time.sleep(0.1)

        def client(secret: str) -> Any:
            return boto3.client(
                "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                aws_access_key_id="key", aws_secret_access_key=secret,
            )  # fmt: skip

        client("secret").create_bucket(Bucket="reshelve")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client("wrong").list_buckets()
    finally:
        stop_group(process.pid)


@pytest.mark.slow
def test_the_model_server_waits_for_the_agent_and_gets_its_flags(tmp_path: Path) -> None:
    """A stand-in named like the server prints its arguments: the flags are TensorFlow Serving's own."""
    server = tmp_path / "tensorflow_model_server"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    models = tmp_path / "models"
    models.mkdir()
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "MODELS": str(models)}
    script = PROJECT / "include" / "compose" / "model-server.sh"
    process = subprocess.Popen(["sh", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "waiting for the agent" in process.stdout.readline()
    (models / "models.config").write_text("model_config_list {}")
    output, _ = process.communicate(timeout=10)
    assert f"--model_config_file={models}/models.config" in output.splitlines()
    assert {"--port=8500", "--grpc_max_threads=64"} <= set(output.splitlines())
    (monitoring,) = (line for line in output.splitlines() if line.startswith("--monitoring_config_file="))
    said = Path(monitoring.partition("=")[2]).read_text()
    scraped = yaml.safe_load((PROJECT / "include/compose/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]
    (page,) = (job["metrics_path"] for job in scraped if job["job_name"] == "model-server")
    assert said.split() == ["prometheus_config", "{", "enable:", "true", "path:", f'"{page}"', "}"]


@pytest.mark.parametrize("name", ["scheduler", "gpu-scheduler"])
def test_base_models_of_a_hub_are_kept_where_a_night_may_write(name: str) -> None:
    """The root file system is read-only, the home with it."""
    volumes = [volume.split(":") for volume in SERVICES[name]["volumes"]]
    writes = [place for source, place, *mode in volumes if mode != ["ro"]]
    assert any(SERVICES[name]["environment"]["HF_HOME"].startswith(f"{place}/") for place in writes)


@pytest.mark.parametrize("name", ["scheduler", "gpu-scheduler", "agent"])
def test_packaging_and_agents_are_given_the_same_operations(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment["RESHELVE_GRAPH_OPERATIONS"] == "${RESHELVE_GRAPH_OPERATIONS:-}"


def test_the_model_server_has_room_for_its_threads() -> None:
    """gRPC's, REST's and TensorFlow's pools, on a host with many cores: one more refused would end the server."""
    assert SERVICES["model-server"]["pids_limit"] >= 4096


def test_what_an_older_environment_file_lacks_is_added_to_it() -> None:
    """Writing the file anew would throw away the passwords of an installation."""
    messages = dict(re.findall(r"\$\{(RESHELVE_S3_\w+):\?([^}]*)\}", TEXT))
    assert len(messages) == 2 * len(IDENTITIES)
    assert set(messages.values()) == {"add the RESHELVE_S3_ lines that scripts/compose_env.sh prints"}
