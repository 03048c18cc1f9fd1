"""Copies of versions to a server's disk, from a real object store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.graphs import graph_bytes

from reshelve.agent.copier import Copier
from reshelve.agent.disk import Disk
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest
from reshelve.store.versions import describe_directory

MEGABYTES = 4


def publish(store: ObjectStore, version: int, source: Path) -> None:
    """A signed version of some megabytes."""
    (source / "assets.extra").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(graph_bytes())
    (source / "assets.extra" / "ballast").write_bytes(bytes([version % 256]) * (MEGABYTES * 1_000_000))
    prefix = f"models/recommend/{version}"
    store.upload_directory(source, prefix)
    document = {
        "ranker": "recommend",
        "version": version,
        "kind": "next_item",
        "created_at": "2011-08-31T03:00:00Z",
        "files": {path: entry.model_dump() for path, entry in describe_directory(source).items()},
        "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
        "gate": {"verdict": "promote", "metrics": {}},
    }
    store.put_json(f"{prefix}/manifest.json", signed_manifest(document))


def test_only_the_first_version_is_copied_at_full_speed(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_COPY_MEGABYTES_PER_SECOND", "1")
    settings.cache_clear()
    copier = Copier(store, Disk(tmp_path / "models"))
    seconds = []
    for version in (20110830001, 20110831001):
        publish(store, version, tmp_path / str(version))
        started = time.monotonic()
        copier.want("recommend", [version])
        while version not in copier.disk.of("recommend"):
            assert time.monotonic() < started + 60, copier.troubles("recommend")
            time.sleep(0.01)
        seconds.append(time.monotonic() - started)
    copier.close()
    first, second = seconds
    assert second > 0.75 * MEGABYTES, "a megabyte a second"
    assert first < second / 2, "nothing served yet"
