"""The files of Prometheus and Grafana, parsed: every metric and label in them must be one we export.

test_prometheus.py has a real Prometheus read them. What neither can find is how a panel looks.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from reshelve.monitoring.exporter import METRICS
from reshelve.monitoring.observations import Condition
from reshelve.settings import PROJECT

COMPOSE = PROJECT / "include" / "compose"
SERVICES = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["services"]
RULES = yaml.safe_load((COMPOSE / "prometheus" / "rules.yml").read_text())["groups"]
BOARD = json.loads((COMPOSE / "grafana" / "dashboards" / "reshelve.json").read_text())
LABELS = {"ranker", "version", "role", "quantile", "name", "condition", "action", "agent"}
KNOWN = set(METRICS) | {f"{name}_total" for name in METRICS} | {"up"}

EXPRESSIONS = {rule["alert"]: rule["expr"] for group in RULES for rule in group["rules"]}
EXPRESSIONS |= {panel["title"]: target["expr"] for panel in BOARD["panels"] for target in panel["targets"]}


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_expressions_are_of_our_metrics(title: str) -> None:
    expression = EXPRESSIONS[title]
    bare = re.sub(r'"[^"]*"', '""', expression)
    for opening, closing in ("()", "[]", "{}"):
        assert bare.count(opening) == bare.count(closing), expression
    names = set(re.findall(r"\breshelve_\w+", bare))
    assert names <= KNOWN, names - KNOWN
    assert names or "up" in bare or ":tensorflow:serving:" in expression
    for counter in re.findall(r"(reshelve_\w+_total)\b", bare):
        assert re.search(rf"(rate|increase)\({counter}[{{\[]", bare), (
            f"{counter}: a counter is read by its increase"
        )
    for labels in re.findall(r"\{([^}]*)\}", bare):
        used = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", labels))
        assert used <= LABELS | {"job", "__name__"}, used
    for labels in re.findall(r"by \(([^)]*)\)", bare):
        assert {label.strip() for label in labels.split(",")} <= LABELS | {"model_name"}
    for conditions in re.findall(r'condition=~?"([^"]*)"', expression):
        assert set(conditions.split("|")) <= {condition.value for condition in Condition}


def test_every_rule_says_what_it_is_about() -> None:
    names = [rule["alert"] for group in RULES for rule in group["rules"]]
    assert len(names) == len(set(names))
    for group in RULES:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "ticket")
            assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= LABELS
            assert "for" not in rule or re.fullmatch(r"\d+[smhd]", rule["for"])


def test_the_board_reads_the_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((COMPOSE / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    used: set[Any] = {panel["datasource"]["uid"] for panel in BOARD["panels"]}
    assert used == {source["uid"]} and source["url"] == "http://prometheus:9090"
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(places) == len(set(places))
    (provider,) = yaml.safe_load((COMPOSE / "grafana/provisioning/dashboards/reshelve.yml").read_text())[
        "providers"
    ]
    mounted = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounted


def test_prometheus_asks_services_that_are_there() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            assert target.split(":")[0] in SERVICES
    assert config["rule_files"] == ["/etc/prometheus/rules.yml"]
    assert set(METRICS) >= {"reshelve_requests", "reshelve_found"}
    assert "ports" not in SERVICES["metrics"], "only Prometheus asks it"
