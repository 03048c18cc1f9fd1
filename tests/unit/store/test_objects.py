"""The object store against a real SeaweedFS."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.store.objects import ObjectStore, PreconditionFailedError


def test_what_is_put_is_got(store: ObjectStore) -> None:
    etag = store.put("a/b", b"bytes")
    found = store.get("a/b")
    assert found is not None
    assert (found.body, found.etag) == (b"bytes", etag)
    assert store.get("a/c") is None
    assert store.exists("a/b") and not store.exists("a/c")


def test_only_one_of_many_writers_creates_an_object(store: ObjectStore) -> None:
    def create(writer: int) -> bool:
        try:
            store.put("once", str(writer).encode(), if_absent=True)
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        winners = [writer for writer, won in enumerate(pool.map(create, range(16))) if won]
    assert len(winners) == 1
    found = store.get("once")
    assert found is not None and found.body == str(winners[0]).encode()


def test_compare_and_swap_refuses_a_stale_tag(store: ObjectStore) -> None:
    first = store.put("pointer", b"1")
    store.put("pointer", b"2", if_match=first)
    with pytest.raises(PreconditionFailedError):
        store.put("pointer", b"3", if_match=first)


def test_conditional_get_tells_unchanged_from_missing(store: ObjectStore) -> None:
    etag = store.put("pointer", b"1")
    assert store.get_if_changed("pointer", etag) == (None, False)
    assert store.get_if_changed("nothing", etag) == (None, True)
    found, changed = store.get_if_changed("pointer", '"other"')
    assert changed and found is not None and found.body == b"1"


def test_a_directory_round_trips_without_hidden_files(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "index").write_bytes(b"weights")
    (source / ".cache").write_bytes(b"never")
    store.upload_directory(source, "models/m/1")
    store.download_directory("models/m/1", target)
    found = {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    }
    assert found == {"saved_model.pb": b"graph", "variables/index": b"weights"}
    assert store.folders("models/") == ["m"]


def test_a_store_that_is_away_says_try_again(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TryAgainError, match="did not answer"):
        ObjectStore("reshelve").get("key")


def test_a_new_store_uses_the_credentials_of_now(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
        with pytest.raises(ConfigurationError, match="InvalidAccessKeyId"):
            ObjectStore(store.bucket).create_bucket()
    ObjectStore(store.bucket).create_bucket()
