"""Each process holds only what it needs: docs/reference/processes.md is the table, compose, Kubernetes and the local platform keep to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reshelve.platform import seaweedfs
from reshelve.platform.configuration import Machine, Ports
from reshelve.platform.holdings import AIRFLOWS, IDENTITY, environment_of
from reshelve.platform.identities import IDENTITIES, from_environment
from reshelve.platform.machine import SERVICES as LOCAL
from reshelve.processes import start
from reshelve.settings import PROJECT

PAGE = (PROJECT / "docs" / "reference" / "processes.md").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KUBERNETES = (PROJECT / "docs" / "how-to" / "kubernetes.md").read_text()
MANIFESTS = [
    document
    for block in re.findall(r"```yaml\n(.*?)```", KUBERNETES, re.S)
    for document in yaml.safe_load_all(block)
]
NO_SECRET = {
    "RESHELVE_TRUSTED_KEYS",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "RESHELVE_SIGNING_KEY",
    "RESHELVE_GATE_KEY",
    "RESHELVE_RELEASE_KEY",
    "RESHELVE_PERSON_KEY",
    "RESHELVE_GATEWAY_TOKENS",  # of an older .env: the gateway refuses it
    "RESHELVE_GATEWAY_TOKENS_FILE",  # hashes
}
A_SECRET = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|CONN|WEBHOOK|TRACKING_URI")


@dataclass(frozen=True)
class Row:
    """What the page says of one service."""

    identity: str
    secrets: frozenset[str]
    writes: frozenset[str]
    reads: frozenset[str]
    networks: frozenset[str]


def words(cell: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", cell))


def table() -> dict[str, Row]:
    lines = re.findall(
        r"^\| `([a-z-]+)` \|(.*)\|$", PAGE.partition("## What each holds")[2].partition("\n## ")[0], re.M
    )
    found = {}
    for name, rest in lines:
        identity, secrets, writes, reads, networks = rest.split("|")
        found[name] = Row(identity.strip(), words(secrets), words(writes), words(reads), words(networks))
    return found


TABLE = table()


def identity_of(environment: dict[str, str]) -> str:
    found = re.fullmatch(r"\$\{RESHELVE_S3_([A-Z]+)_KEY:\?.*\}", environment.get("AWS_ACCESS_KEY_ID", ""))
    return found[1].lower() if found else "–"


def test_the_table_has_every_service() -> None:
    assert set(TABLE) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_holds_only_what_the_table_says(name: str) -> None:
    service, row = SERVICES[name], TABLE[name]
    environment = service.get("environment", {})
    store = {one for one in environment if one.startswith("RESHELVE_S3_")}
    secrets = {
        one
        for one in environment
        if A_SECRET.search(one) and one not in NO_SECRET and not one.startswith("AWS_")
    }
    assert identity_of(environment) == row.identity
    assert frozenset(secrets - store) | ({"RESHELVE_S3_…"} if store else set()) == row.secrets
    named = [volume.split(":") for volume in service.get("volumes", []) if not volume.startswith(".")]
    assert frozenset(source for source, _, *mode in named if mode != ["ro"]) == row.writes
    assert frozenset(source for source, _, *mode in named if mode == ["ro"]) == row.reads
    assert all(volume.endswith(":ro") for volume in service.get("volumes", []) if volume.startswith("."))
    assert frozenset(service["networks"]) == row.networks


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and not service.get("privileged")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["pids_limit"] and service["mem_limit"]
    assert str(service.get("user", "")).split(":")[0] not in ("root", "0")
    assert service.get("network_mode") is None and service.get("pid") is None


def test_the_keys_of_the_store_are_for_every_identity_and_the_store_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {name for name in SERVICES["object-store"]["environment"] if name.startswith("RESHELVE_S3_")}
    for name in there:
        monkeypatch.setenv(name, name.lower())
    assert set(from_environment()) == set(IDENTITIES)
    assert len(there) == 2 * len(IDENTITIES)


def test_only_what_publishes_a_port_or_calls_out_leaves_the_inner_networks() -> None:
    inner = {name for name, network in COMPOSE["networks"].items() if network and network.get("internal")}
    assert inner == {"database", "control", "store", "inside", "serving", "watching"}
    for name, service in SERVICES.items():
        assert ("edge" in service["networks"]) == bool(service.get("ports")), name
    options = COMPOSE["networks"]["edge"]["driver_opts"]
    assert set(options.values()) == {"false"} and len(options) == 2


@pytest.mark.parametrize("customers_reach", ["gateway", "model-front", "model-server"])
def test_what_customers_reach_is_beside_no_database_and_no_signing_key(customers_reach: str) -> None:
    row = TABLE[customers_reach]
    assert not row.networks & {"database", "control", "outside"}
    assert not (row.writes | row.reads) & {"keys", "state", "logs", "database"}


def test_the_table_of_identities_is_that_of_the_code() -> None:
    part = PAGE.partition("## Identities in the bucket")[2].partition("\n## ")[0]
    said = {}
    for name, purpose, reads, writes in re.findall(
        r"^\| `([a-z]+)` \| (.*?) \| (.*?) \|(.*?)\|$", part, re.M
    ):
        said[name] = (purpose, prefixes(reads), prefixes(writes), "makes buckets" in writes)
    assert said == {
        name: (one.purpose, set(one.reads), set(one.writes), one.administers)
        for name, one in IDENTITIES.items()
    }


def prefixes(cell: str) -> set[str]:
    return {""} if "everything" in cell else set(words(cell))


# The local platform


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in (
        "AWS_SESSION_TOKEN",
        "GITHUB_TOKEN",
        "RESHELVE_GATEWAY_TOKENS",
        "RESHELVE_PSEUDONYM_KEYS",
        "AIRFLOW_CONN_SMTP_DEFAULT",
    ):
        monkeypatch.setenv(name, "a secret of the shell")
    return Machine(tmp_path, Ports())  # type: ignore[call-arg]


def test_a_local_service_has_the_identity_of_the_table() -> None:
    assert set(IDENTITY) == set(LOCAL)
    for name, identity in IDENTITY.items():
        assert (identity or "–") == TABLE[name].identity, name


@pytest.mark.parametrize("name", IDENTITY)
def test_a_local_service_has_the_keys_of_its_identity_alone(machine: Machine, name: str) -> None:
    given = environment_of(name, machine)
    secrets = {seaweedfs.credentials(machine.store, one).secret_key: one for one in IDENTITIES}
    assert {secrets[value] for value in given.values() if value in secrets} == {IDENTITY[name]} - {None}
    assert "AWS_SESSION_TOKEN" not in given


@pytest.mark.parametrize("name", sorted(set(IDENTITY) - set(AIRFLOWS)))
def test_a_local_service_that_is_not_airflows_has_no_other_secret(machine: Machine, name: str) -> None:
    given = environment_of(name, machine)
    assert "a secret of the shell" not in given.values()
    own = machine.secrets.model_dump()
    known = {one for one in own.values() if isinstance(one, str)} | set(own["passwords"].values())
    assert not [key for key, value in given.items() if any(one in value for one in known)]
    assert not [key for key in given if key.startswith("AIRFLOW")]
    assert given["PATH"] and given["RESHELVE_HOME"] == str(machine.home)


@pytest.mark.slow
def test_a_process_without_the_shells_environment_has_only_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "a secret of the shell")
    log = tmp_path / "log"
    assert start(["/usr/bin/env"], log, {"ONLY": "this"}, inherit=False).wait(30) == 0
    given = set(log.read_text().splitlines())
    assert given - {"LC_CTYPE=C.UTF-8"} == {"ONLY=this"}  # Python's own, for a process without a locale


# Kubernetes


def kind(name: str) -> list[dict[str, Any]]:
    return [one for one in MANIFESTS if one["kind"] == name]


def containers() -> list[dict[str, Any]]:
    pods = [one["spec"]["template"]["spec"] for one in kind("Deployment")]
    return [one for pod in pods for part in ("initContainers", "containers") for one in pod.get(part, [])]


def test_pods_meet_the_restricted_standard() -> None:
    (namespace,) = kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for deployment in kind("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        context, limits = container["securityContext"], container["resources"]["limits"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert limits["memory"] and container["resources"]["requests"]["cpu"]
        assert re.search(r"@sha256:|:[\w.-]+$", container["image"]), container["image"]


def test_a_containers_secrets_are_those_of_the_table() -> None:
    found = {one["name"]: one for one in containers()}
    assert {"agent", "model-server", "model-front", "gateway"} <= set(found)
    for name, container in found.items():
        keys = [one["secretRef"]["name"] for one in container.get("envFrom", [])]
        secret = [
            one["valueFrom"]["secretKeyRef"]["name"]
            for one in container.get("env", [])
            if "secretKeyRef" in one.get("valueFrom", {})
        ]
        identity = TABLE[name].identity
        assert keys == ([] if identity == "–" else [f"reshelve-s3-{identity}"]), name
        assert len(secret) == len(TABLE[name].secrets), name
    users = [found[name]["securityContext"].get("runAsUser") for name in ("agent", "model-server")]
    assert len(set(users)) == 2, "the model server runs under its own user"
    (models,) = (one for one in found["model-server"]["volumeMounts"] if one["name"] == "models")
    assert models["readOnly"] is True


def test_the_agent_may_be_given_operations_of_kinds_of_ones_own() -> None:
    (agent,) = (one for one in containers() if one["name"] == "agent")
    assert "RESHELVE_GRAPH_OPERATIONS" in {one["name"] for one in agent["env"]}


def test_nothing_is_reached_that_no_policy_names() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in kind("NetworkPolicy")}
    nothing = policies["nothing"]
    assert nothing["podSelector"] == {} and set(nothing["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in nothing and "egress" not in nothing
    for deployment in kind("Deployment"):
        app = deployment["spec"]["selector"]["matchLabels"]["app"]
        assert [
            one for one in policies.values() if one["podSelector"].get("matchLabels", {}).get("app") == app
        ], app
    for spec in policies.values():
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert rule.get("ports"), "a rule without a port lets everything through"
