"""docker-compose.oidc.yaml over docker-compose.yaml: a company's log-in, and nothing else than that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from reshelve.settings import PROJECT

BASE = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["services"]
TEXT = (PROJECT / "docker-compose.oidc.yaml").read_text()
OVER = yaml.safe_load(TEXT)
SERVICES = OVER["services"]
PAGE = (PROJECT / "docs" / "how-to" / "log-in.md").read_text()


def test_it_is_a_compose_file() -> None:
    schema = json.loads(Path(__file__).with_name("compose_spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(OVER)
    assert set(SERVICES) <= set(BASE)


def test_who_asks_for_people_and_their_rights_has_the_auth_manager() -> None:
    """The scheduler and the triggerer ask nobody who they are; `init` makes the tables, the DAG processor the rights on DAGs."""
    assert set(SERVICES) == {"init", "dag-processor", "api-server"}
    for service in SERVICES.values():
        assert service["environment"]["AIRFLOW__CORE__AUTH_MANAGER"].endswith(".FabAuthManager")
        assert service["build"]["args"] == {"LOGIN": "fab"}
        assert service["image"] != BASE["api-server"]["image"], "the image of the others stays as it is"


def test_only_the_pages_know_the_provider() -> None:
    for name, service in SERVICES.items():
        assert any(one.startswith("OIDC_") for one in service["environment"]) == (name == "api-server")
    pages = SERVICES["api-server"]
    assert pages["environment"]["AIRFLOW_PASSWORD"] == "" and pages["command"] == ["airflow", "api-server"]
    assert pages["networks"] == ["outside"] and "ports" not in pages


def test_its_file_is_in_the_image() -> None:
    place = SERVICES["api-server"]["environment"]["AIRFLOW__FAB__CONFIG_FILE"]
    assert (PROJECT / Path(place).relative_to("/opt/reshelve")).is_file()
    assert "./include:/opt/reshelve/include:ro" in BASE["api-server"]["volumes"]


def test_no_secret_has_a_default() -> None:
    assert re.findall(r"\$\{(\w*SECRET\w*):(.)", TEXT) == [("OIDC_CLIENT_SECRET", "?")]
    assert not re.search(r"(?<!\$)\$\{\w+\}", TEXT)


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\$\{(\w+)", TEXT))))
def test_every_variable_is_explained(variable: str) -> None:
    assert f"`{variable}`" in PAGE
