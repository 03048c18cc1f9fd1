"""Conditional writes are proven before they are relied on, whatever a store makes of them."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.misbehaving import Misbehaving, conditional, ignores, says

from reshelve.deployments import deployment_log
from reshelve.deployments.deployment_log import Offer, deployed_rankers, move_pointer
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.pipeline.references import load_ranker
from reshelve.pipeline.retention import clean
from reshelve.settings import settings
from reshelve.store import conditions, signatures, versions
from reshelve.store.conditions import AGENTS_PREFIX, require_conditional_writes
from reshelve.store.objects import ObjectStore

PUBLISH = ("publish", "--ranker", "recommend", "--partition", "2011-08-30", "--json")


def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return [key for key, _ in store.list(prefix)]


def test_a_store_that_keeps_its_conditions_is_asked_once_and_left_as_it_was(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore
) -> None:
    through.put("deployments/shop/one.json", b"1", if_absent=True)
    asked = len(unruly.asked)
    through.put("deployments/shop/two.json", b"2", if_absent=True)
    require_conditional_writes(through, AGENTS_PREFIX)
    assert len(unruly.asked) == asked + 1
    assert keys_of(store) == ["deployments/shop/one.json", "deployments/shop/two.json"]


def test_many_processes_ask_at_once(unruly: Misbehaving, store: ObjectStore, reshelve: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: reshelve("check-store", "--json"), range(4)))
    assert [one.returncode for one in done] == [0] * 4, done[0].stderr
    assert json.loads(done[0].stdout)["conditional_writes"] is True
    assert keys_of(store) == []


@pytest.mark.parametrize("header", ["if-none-match", "if-match"])
def test_a_store_that_ignores_a_condition_is_refused(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, header: str
) -> None:
    unruly.add(ignores(header))
    with pytest.raises(ConfigurationError, match=f"(?i)s3://{store.bucket} .*{header}.*it (wrote|took)"):
        require_conditional_writes(through, AGENTS_PREFIX)
    assert keys_of(store) == []


@pytest.mark.parametrize("code", ["NotImplemented", "MethodNotAllowed", "InvalidArgument"])
def test_a_store_that_refuses_the_header_is_refused(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, code: str
) -> None:
    unruly.add(says(501 if code == "NotImplemented" else 400, code, conditional))
    with pytest.raises(ConfigurationError, match=f"s3://{store.bucket} .*If-None-Match.*{code}"):
        require_conditional_writes(through, AGENTS_PREFIX)
    assert keys_of(store) == []


def test_a_store_that_refuses_every_condition_is_refused(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore
) -> None:
    unruly.add(says(412, "PreconditionFailed", conditional))
    with pytest.raises(ConfigurationError, match="refused an object that was not there"):
        require_conditional_writes(through, AGENTS_PREFIX)


def test_nothing_is_proven_while_the_store_is_away(unruly: Misbehaving, through: ObjectStore) -> None:
    busy = unruly.add(says(503, "SlowDown", conditional))
    with pytest.raises(TryAgainError):
        require_conditional_writes(through, AGENTS_PREFIX)
    unruly.faults.remove(busy)
    require_conditional_writes(through, AGENTS_PREFIX)


def test_an_agent_checks_with_the_rights_it_has(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore
) -> None:
    """It may read deployments/ and write below deployments/*/agents/, and delete nothing; housekeeping does."""

    def forbidden(request: Any) -> bool:
        folders = request.key.split("/")
        writes = request.method in ("PUT", "POST", "DELETE")
        return writes and not (
            request.method == "PUT" and folders[0] == "deployments" and folders[2] == "agents"
        )

    unruly.add(says(403, "AccessDenied", forbidden))
    require_conditional_writes(through, AGENTS_PREFIX)
    assert len(keys_of(store, AGENTS_PREFIX)) == 1
    assert deployed_rankers(store) == []
    assert conditions.leftovers(store, AGENTS_PREFIX) == []  # whoever asks now may still be asking


def test_what_a_killed_check_left_goes_after_a_day(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"{AGENTS_PREFIX}.check-1", b"1")
    store.put("models/recommend/.check-2", b"1")
    assert versions.list_versions(store, "recommend") == []
    assert clean(load_ranker("recommend"), dry_run=False)["reports"] == []
    monkeypatch.setattr(conditions, "_KILLED", timedelta(seconds=-1))
    assert clean(load_ranker("recommend"), dry_run=False)["reports"] == [
        f"{AGENTS_PREFIX}.check-1",
        "models/recommend/.check-2",
    ]
    assert keys_of(store) == []


@pytest.mark.slow
def test_four_publishers_on_a_store_that_ignores_conditions_publish_nothing(
    unruly: Misbehaving, store: ObjectStore, packaged: Run, tmp_path: Path, reshelve: Any
) -> None:
    unruly.add(ignores("if-none-match"))
    keys = {
        "RESHELVE_SIGNING_KEY": str(signatures.signing_key_path()),
        "RESHELVE_TRUSTED_KEYS": str(signatures.trusted_keys_path()),
    }

    def publish(number: int) -> subprocess.CompletedProcess[str]:  # each as on a host of its own
        found = reshelve(*PUBLISH, RESHELVE_HOME=str(tmp_path / f"host-{number}"), **keys)
        assert isinstance(found, subprocess.CompletedProcess)
        return found

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(publish, range(4)))
    assert [one.returncode for one in done] == [78] * 4, done[0].stderr
    assert f"s3://{store.bucket} does not support conditional writes" in done[0].stderr
    assert keys_of(store, "models/") == []


def test_no_pointer_is_moved_on_a_store_that_ignores_conditions(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, packaged: Run
) -> None:
    version = publish(packaged)["version"]
    unruly.add(ignores("if-none-match"))
    with pytest.raises(ConfigurationError, match="does not support conditional writes"):
        move_pointer(through, "recommend", Offer(version), by="test", reason="")
    assert keys_of(store, "deployments/") == []
    assert deployment_log.read_pointer(store, "recommend") is None


def test_the_platform_and_compose_ask_before_anything_else(
    unruly: Misbehaving, store: ObjectStore, reshelve: Any
) -> None:
    unruly.add(ignores("if-match"))
    done = reshelve("check-store")
    assert done.returncode == 78
    assert store.bucket in done.stderr and "If-Match" in done.stderr
    script = Path(settings().rankers_dir).parent / "compose" / "init.sh"
    assert "reshelve check-store" in script.read_text()


def test_an_agent_does_not_start_on_a_store_that_ignores_conditions(
    unruly: Misbehaving, store: ObjectStore, tmp_path: Path, reshelve: Any
) -> None:
    unruly.add(ignores("if-none-match"))
    done = reshelve("agent", "--models", str(tmp_path / "models"), "--server", "127.0.0.1:1", "--name", "a")
    assert done.returncode == 78 and "does not support conditional writes" in done.stderr, done.stderr


def test_an_agent_does_not_start_with_nothing_to_serve_where_the_store_refuses_it(
    unruly: Misbehaving, store: ObjectStore, tmp_path: Path, reshelve: Any
) -> None:
    unruly.add(says(403, "AccessDenied", lambda _: True))
    done = reshelve("agent", "--models", str(tmp_path / "models"), "--server", "127.0.0.1:1", "--name", "a")
    assert done.returncode == 78 and "AccessDenied" in done.stderr, done.stderr
