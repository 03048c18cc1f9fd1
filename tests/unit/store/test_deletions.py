"""What became of each key: S3 answers 200 to a call that deleted nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.misbehaving import Misbehaving, keeps, many_deletions, says

from reshelve.deployments.freeze import hold, lift
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.pipeline.retention import _delete_version
from reshelve.store import puts
from reshelve.store.objects import ObjectStore

OLD = datetime.now(UTC).date() - timedelta(days=90)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puts, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def old_days(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two objects of a source that keeps 30 days."""
    mapping = tmp_path / "clickstreams" / "shop.yaml"
    mapping.parent.mkdir()
    from reshelve.settings import settings

    text = (settings().clickstreams_dir / "retail.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("name:", "keep_days:"))]
    mapping.write_text("\n".join([*lines, "name: shop", "keep_days: 30", ""]))
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(mapping.parent))
    keys = [f"clickstream/shop/dt={OLD}/part-{number}.parquet" for number in range(2)]
    for key in keys:
        store.put(key, b"rows")
    return keys


def left(store: ObjectStore) -> list[str]:
    return [key for key, _ in store.list("")]


@pytest.mark.parametrize(
    ("code", "error"), [("AccessDenied", ConfigurationError), ("InternalError", TryAgainError)]
)
def test_a_key_that_was_not_deleted_is_an_error(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, code: str, error: type[Exception]
) -> None:
    for key in ("a", "b", "c"):
        store.put(key, b"1")
    unruly.add(keeps(["b"], code))
    with pytest.raises(error, match="1 of 3 objects were not deleted, b first"):
        through.delete(["a", "b", "c"])
    assert left(store) == ["b"]


def test_a_key_that_was_busy_is_deleted_after_all(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore
) -> None:
    store.put("a", b"1")
    unruly.add(keeps(["a"], "InternalError", times=1))
    through.delete(["a"])
    assert left(store) == []


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed")])
def test_a_store_without_the_call_deletes_one_by_one(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, status: int, code: str
) -> None:
    keys = [f"a/{number:02d}" for number in range(20)]
    for key in keys:
        store.put(key, b"1")
    refused = unruly.add(says(status, code, many_deletions))
    through.delete([*keys, "a/that-is-not-there"])
    through.delete(["a/nor-this"])
    assert left(store) == []
    assert refused.seen == 1  # found out once


def test_one_by_one_tells_what_stayed(unruly: Misbehaving, through: ObjectStore, store: ObjectStore) -> None:
    for key in ("a", "b"):
        store.put(key, b"1")
    unruly.add(says(501, "NotImplemented", many_deletions))
    unruly.add(says(403, "AccessDenied", lambda request: request.method == "DELETE" and request.key == "b"))
    found = through.delete_each(["a", "b"])
    assert list(found) == ["b"] and isinstance(found["b"], ConfigurationError)
    assert left(store) == ["b"]


def test_a_hold_that_was_not_deleted_is_not_lifted(unruly: Misbehaving, through: ObjectStore) -> None:
    hold(through, "recommend", by="anna", reason="an audit")
    unruly.add(keeps(["deployments/recommend/hold.json"]))
    with pytest.raises(ConfigurationError, match=r"hold\.json"):
        lift(through, "recommend")


def test_a_version_whose_manifest_stayed_keeps_its_files(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore
) -> None:
    prefix = "models/recommend/20110830001"
    for name in ("manifest.json", "saved_model.pb"):
        store.put(f"{prefix}/{name}", b"{}")
    unruly.add(keeps([f"{prefix}/manifest.json"]))
    with pytest.raises(ConfigurationError):
        _delete_version(through, "recommend", 20110830001)
    assert left(store) == [f"{prefix}/manifest.json", f"{prefix}/saved_model.pb"]


@pytest.mark.parametrize(("code", "exit_code"), [("AccessDenied", 78), ("InternalError", 75)])
def test_expire_says_what_it_really_deleted(
    unruly: Misbehaving, store: ObjectStore, old_days: list[str], reshelve: Any, code: str, exit_code: int
) -> None:
    unruly.add(keeps(old_days[:1], code))
    done = reshelve("expire", "--source", "shop", "--no-dry-run", "--json")
    assert done.returncode == exit_code, done.stderr
    result = json.loads(done.stdout)
    assert (result["objects"], result["left"], result["days"]) == (1, 1, [])
    assert old_days[0] in done.stderr and left(store) == old_days[:1]


def test_expire_goes_on_where_it_was_refused(
    unruly: Misbehaving, store: ObjectStore, old_days: list[str], reshelve: Any
) -> None:
    unruly.add(says(501, "NotImplemented", many_deletions))
    done = reshelve("expire", "--source", "shop", "--no-dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["objects"] == 2
    assert left(store) == []


def test_expire_that_is_refused_as_a_whole_deleted_nothing(
    unruly: Misbehaving, store: ObjectStore, old_days: list[str], reshelve: Any
) -> None:
    unruly.add(says(403, "AccessDenied", many_deletions))
    done = reshelve("expire", "--source", "shop", "--no-dry-run", "--json")
    assert done.returncode == 78
    assert json.loads(done.stdout)["objects"] == 0
    assert left(store) == old_days
