"""A rule file is reviewed data: what is wrong in it is named by file and line before any partition is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from reshelve.errors import ConfigurationError
from reshelve.settings import PROJECT, settings
from reshelve.validation.rules import RowRule, Severity, load_rules

SHIPPED = (PROJECT / "include" / "expectations" / "clickstream.yaml").read_text()


def test_the_shipped_rules_load() -> None:
    rules = load_rules()
    assert {rule.severity for rule in rules.rules} == set(Severity)
    assert all(isinstance(rule, RowRule) for rule in rules.quarantine)


@pytest.mark.parametrize(
    ("old", "new", "at", "problem"),
    [
        pytest.param("check: unique", "check: uniq", "check: uniq", "uniq", id="unknown check"),
        pytest.param("  - name: event_once\n", "  - name: Event Once\n", "name: Event Once", "match pattern", id="a name"),
        pytest.param("max: 256", "max: long", "max: long", "valid integer", id="a wrong number"),
        pytest.param("tolerate: 0.05", "tolerance: 0.05", "tolerance: 0.05", "not permitted", id="unknown key"),
        pytest.param("column: query", "column: qery", "column: qery", "'event_id'", id="unknown column"),
        pytest.param("= $partition", "== partition_day", "partition_day", "partition_day", id="SQL that does not bind"),
        pytest.param("quantity BETWEEN", "quantity BETWEN", "BETWEN", "syntax", id="no SQL"),
        pytest.param("per: user_id", "per: item_id", "per: item_id", "'session_id' or 'user_id'", id="bots of items"),
        pytest.param("event_type: return", "event_type: refund", "event_type: refund", "'impression'", id="a share of no event type"),
        pytest.param("column: price\n    max: 0.25", "column: colour\n    max: 0.25", "column: colour", "'price'", id="drift of no number"),
        pytest.param("weeks: 5", "weeks: 0", "weeks: 0", "greater than or equal to 1", id="no weeks"),
        pytest.param("max: 10000", "max: 0", "max: 0", "expected at most max", id="min above max"),
        pytest.param("    check: row_count\n    min: 1", "    check: row_count\n    min: 3\n    max: 2", "min: 3", "expected at most max (2)", id="fewer rows than the least"),
        pytest.param("event_type: return\n    max: 0.2", "event_type: return\n    min: 0.3\n    max: 0.2", "min: 0.3", "expected at most max (0.2)", id="a share above itself"),
        pytest.param("max: 10000", "max: .nan", "max: .nan", "finite number", id="no number"),
        pytest.param("weeks: 5", "weeks: 1", "weeks: 1", "expected at most weeks (1)", id="never asked"),
        pytest.param("max: 0.3", "max: 0.3\n    least_days: 29", "least_days", "at most the 28 days", id="more days than weeks have"),
        pytest.param("price: [DOUBLE, FLOAT]", "price: []", "price: []", "at least 1", id="a column of no type"),
        pytest.param("severity: quarantine\n    check: not_null", "severity: quarantine\n    tolerate: 0.1\n    check: not_null", "tolerate: 0.1", "quarantines every row", id="tolerates what it sets aside"),
    ],
)  # fmt: skip
def test_a_wrong_rule_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, at: str, problem: str
) -> None:
    assert old in SHIPPED
    text = SHIPPED.replace(old, new, 1)
    path = tmp_path / "clickstream.yaml"
    path.write_text(text)
    monkeypatch.setenv("RESHELVE_EXPECTATIONS_DIR", str(tmp_path))
    settings.cache_clear()
    line = next(number for number, content in enumerate(text.splitlines(), 1) if at in content)
    try:
        with pytest.raises(ConfigurationError) as caught:
            load_rules()
    finally:
        settings.cache_clear()
    assert problem in str(caught.value)
    rule_starts = max(n for n, content in enumerate(text.splitlines()[:line], 1) if "- name:" in content)
    named = int(caught.value.headline.split(":")[1])
    assert rule_starts <= named <= line, caught.value.headline


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param("severity: stop\n    check: readable", "severity: warn\n    check: readable", "expected stop", id="readable must stop"),
        pytest.param("severity: warn\n    check: quarantined_share", "severity: quarantine\n    check: quarantined_share",
                     "can stop or warn", id="a share sets no row aside"),
        pytest.param("- name: item_known", "- name: event_once", "event_once is named twice", id="one name twice"),
        pytest.param("      price: [DOUBLE, FLOAT]\n", "", "price not named", id="a column without a type"),
    ],
)  # fmt: skip
def test_rules_that_contradict_themselves_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, problem: str
) -> None:
    assert old in SHIPPED
    (tmp_path / "clickstream.yaml").write_text(SHIPPED.replace(old, new, 1))
    monkeypatch.setenv("RESHELVE_EXPECTATIONS_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=problem):
            load_rules()
    finally:
        settings.cache_clear()
