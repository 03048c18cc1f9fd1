"""Names are parsed where they come in: what is not a valid name reaches no key, no page, no metric and no configuration."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from tests.deployed import put_state

from reshelve import names
from reshelve.console.release_reader import ReleaseReader
from reshelve.deployments.deployment_log import Pointer, deployed_rankers, pointer_key
from reshelve.deployments.freeze import Hold
from reshelve.errors import ConfigurationError
from reshelve.monitoring import observations
from reshelve.monitoring.observations import Observation
from reshelve.names import Address, AgentName, BaseName, ClientName, RankerName, Version, Words
from reshelve.pipeline.references import load_ranker
from reshelve.protocol.pointers import Pointers
from reshelve.protocol.reports import read_reports
from reshelve.protocol.traffic import Counts, TrafficReport, read_traffic_reports
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import list_versions

NOW = datetime(2011, 8, 30, 12, tzinfo=UTC)
HOSTILE = (
    "x:predict{}location ~ (.*){root .;}#",
    "x:predict{alias ..;}#",
    "recommend;",
    'recommend"',
    "recommend'",
    "recommend\n",
    "recommend x",
    "recommend$x",
    "Recommend",
    "rec\\ommend",
    "..",
    ".",
    "",
    "é",
    "recommend\x00",
    "a" * 42,
)


class Named(BaseModel):
    """One field for each kind of name."""

    ranker: RankerName | None = None
    base: BaseName | None = None
    version: Version | None = None
    agent: AgentName | None = None
    client: ClientName | None = None
    address: Address | None = None
    words: Words | None = None


@given(st.text(max_size=60))
@example("recommend\n")
@example("recommend")
def test_a_ranker_is_named_as_its_file_is(text: str) -> None:
    good = re.fullmatch(r"[a-z][a-z0-9_]{0,40}", text) is not None
    assert names.is_ranker(text) is good
    assert names.rankers_in([text, "recommend"], "a test") == ([text] if good else []) + ["recommend"]
    if good:
        assert Pointer(ranker=text).ranker == text and pointer_key(text) == f"deployments/{text}/pointer.json"
        return
    for refused in (lambda: Pointer(ranker=text), lambda: Hold(ranker=text, by="a", reason="b", at=NOW)):
        with pytest.raises(ValidationError):
            refused()
    for asked in (pointer_key, load_ranker, observations.prefix):
        with pytest.raises(ConfigurationError, match="not a valid ranker name"):
            asked(text)


@given(st.sampled_from(sorted(set(Named.model_fields) - {"version"})), st.text(max_size=40))
@example("address", "10.0.0.5:8501; }")
@example("client", "../../pointer")
@example("words", 'x"} evil')
def test_what_passes_for_a_name_can_do_no_harm(kind: str, text: str) -> None:
    """Neither in nginx's configuration, nor in a path, nor in a line of a log."""
    try:
        Named.model_validate({kind: text})
    except ValidationError:
        return
    assert not set(text) & set("\"'\\/;{}$#<>|&\n\r\t\0") and text.isascii() and text not in (".", "..")


@pytest.mark.parametrize("text", ["²", "0", "-1", "007", "1e3", "99999999999999", " 7", "7\n", ""])
def test_what_is_no_version(text: str) -> None:
    assert names.version_of(text) is None


def test_versions() -> None:
    assert names.version_of("20110830001") == 20110830001
    for number in (0, -3, 10**30):
        with pytest.raises(ValidationError):
            Pointer(ranker="recommend", stable=number)


@pytest.mark.parametrize("address", ["127.0.0.1:8501", "model-server:8501", "[::1]:8500"])
def test_addresses(address: str) -> None:
    assert names.require_address(address, "--server") == address


@pytest.mark.parametrize("address", ["", "host", "host:", "host:0", "host:99999", "a b:1", "h:1;", "h:1}\n", "http://h:1", "unix:/x:1"])  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigurationError, match="--server"):
        names.require_address(address, "--server")


def test_a_bucket_full_of_hostile_names(store: ObjectStore, tmp_path: Path) -> None:
    """Whoever may write one key: nothing that reads the bucket knows a name that is none, and the others are read on."""
    put_state(store, Pointer(ranker="recommend"))
    for name in HOSTILE:
        if name not in ("", ".", "..") and not set(name) & {
            "\x00",
            "\\",
        }:  # this store makes a slash of a backslash
            document = {"ranker": name, "stable": 1, "sequence": 0}
            store.put_json(f"deployments/{name}/pointer.json", document)
    for folder in ("7", "²", "x", "0"):
        store.put_json(f"models/recommend/{folder}/manifest.json", {})
    good = {"agent": "a", "server": "h:1", "at": NOW.isoformat(), "sequence": 1}
    store.put_json("deployments/recommend/agents/a.json", good)
    store.put_json("deployments/recommend/agents/forged.json", good)
    store.put_json("deployments/recommend/agents/b.json", {**good, "agent": "b", "server": "h:1/../x"})
    counts = {"1": {"7": {"requests": 3}}}
    traffic = {"client": "shop", "at": NOW.isoformat(), "counts": counts}
    store.put_json("deployments/recommend/traffic/shop.json", traffic)
    store.put_json("deployments/recommend/traffic/other.json", traffic)
    for name, count in {
        "more-errors": {"requests": 1, "errors": {"HTTP 500": 9}},
        "negative": {"requests": -5},
        "endless": {"requests": 1, "latency": {"999999999": 1}},
        "words": {"requests": 1, "errors": {"<script>": 1}},
    }.items():
        store.put_json(
            f"deployments/recommend/traffic/{name}.json",
            {"client": name, "at": NOW.isoformat(), "counts": {"1": {"7": count}}},
        )
    look = Observation(ranker="other", at=NOW).model_dump(mode="json")
    store.put_json("monitoring/recommend/2011-08-30/120000.json", look)
    store.put_json("monitoring/recommend/zzz/120000.json", {**look, "ranker": "recommend"})

    assert deployed_rankers(store) == ["recommend"] == ReleaseReader(store).rankers()
    pointers = Pointers(store, tmp_path / "followed")
    pointers.refresh()
    assert set(pointers.known) == {"recommend"}
    assert list_versions(store, "recommend") == [7]
    assert ReleaseReader(store).versions("recommend", None).total == 1
    assert [report.agent for report in read_reports(store, "recommend")] == ["a"]
    assert [report.client for report in read_traffic_reports(store, "recommend")] == ["shop"]
    assert observations.recent(store, "recommend", 5) == ()


def test_counts_that_do_not_add_up_are_no_report() -> None:
    good = Counts(requests=10, errors={"HTTP 500": 2}, rejected={"HTTP 400": 3}, latency={5: 5})
    assert good.judged == 7 and good.adds_up
    bad = good.model_copy(update={"latency": {5: 6}})
    with pytest.raises(ValidationError):
        TrafficReport.model_validate_json(
            json.dumps({"client": "a", "at": NOW.isoformat(), "counts": {1: {7: bad.model_dump()}}})
        )
