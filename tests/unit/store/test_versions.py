"""Publishing and copying versions on a real object store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.deployed import judged

from reshelve.config.ranker import Ranker
from reshelve.errors import DataError, TryAgainError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.store import versions
from reshelve.store.manifest import Manifest, partition_of, version_number
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest

DAY = date(2011, 8, 30)


def packaged_run(store: ObjectStore, work: Path, *, epochs: float = 1, verdict: str = "promote") -> Run:
    """A run whose stages before publish are done, with a small version directory."""
    ranker = Ranker.model_validate(
        {
            "name": "recommend",
            "title": "The next item",
            "kind": "next_item",
            "data": {"source": "retail"},
            "gates": {"metric": "recall@20"},
            "training": {"epochs": epochs},
        }
    )
    run = Run(ranker, DAY, store, work)
    version = run.stage("package").directory / "version"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"graph")
    (version / "variables" / "variables.index").write_bytes(b"weights" * int(epochs))
    run.stage("package").commit({"bytes": 12})
    run.stage("examples").commit({"verdicts": {"2011-08-30": "d1"}})
    run.stage("train").commit({"base": {"name": "minilm"}})
    run.stage("gate").commit(
        judged(run, {"verdict": verdict, "reasons": ["it is better"], "champion": {"version": 20110829001}})
    )
    return run


def published_version(store: ObjectStore, work: Path) -> int:
    return int(publish(packaged_run(store, work))["version"])


def assert_invisible(store: ObjectStore, version: int) -> None:
    assert version not in versions.list_versions(store, "recommend")
    assert versions.read_manifest(store, "recommend", version) is None


def test_publish_writes_files_and_a_manifest_with_lineage(store: ObjectStore, tmp_path: Path) -> None:
    run = packaged_run(store, tmp_path)
    result = publish(run)
    assert (result["published"], result["version"], result["files"]) == (True, 20110830001, 2)
    manifest = versions.read_manifest(store, "recommend", 20110830001)
    assert manifest is not None
    assert set(manifest.files) == {"saved_model.pb", "variables/variables.index"}
    assert manifest.lineage.run == run.id
    assert manifest.lineage.champion == 20110829001
    assert manifest.lineage.verdicts == {"2011-08-30": "d1"}
    assert manifest.gate.verdict == "promote"
    assert versions.list_versions(store, "recommend") == [20110830001]


def test_the_same_run_is_published_once(store: ObjectStore, tmp_path: Path) -> None:
    run = packaged_run(store, tmp_path)
    assert publish(run)["version"] == publish(run)["version"]
    assert versions.list_versions(store, "recommend") == [20110830001]


def test_a_rejected_version_is_not_published(store: ObjectStore, tmp_path: Path) -> None:
    result = publish(packaged_run(store, tmp_path, verdict="reject"))
    assert (result["published"], result["version"], result["reason"]) == (False, None, "it is better")
    assert list(store.list("models/")) == []


def test_publishing_before_the_gate_says_try_again(store: ObjectStore, tmp_path: Path) -> None:
    ranker = packaged_run(store, tmp_path).ranker
    with pytest.raises(TryAgainError, match="stage gate is not done"):
        publish(Run(ranker, date(2011, 8, 31), store, tmp_path))


def test_racing_publishers_take_different_integers(store: ObjectStore, tmp_path: Path) -> None:
    runs = [packaged_run(store, tmp_path / str(n), epochs=n) for n in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(publish, runs))
    assert sorted(r["version"] for r in results) == [20110830001 + n for n in range(4)]
    for run, result in zip(runs, results, strict=True):
        manifest = versions.download_version(
            store, "recommend", result["version"], tmp_path / str(result["version"])
        )
        assert manifest.lineage.run == run.id


def test_a_broken_upload_is_invisible_and_its_integer_is_not_used_again(
    store: ObjectStore, tmp_path: Path
) -> None:
    store.put("models/recommend/20110830001/saved_model.pb", b"half")
    assert_invisible(store, 20110830001)
    assert published_version(store, tmp_path) == 20110830002


def test_a_download_appears_only_when_it_verifies(store: ObjectStore, tmp_path: Path) -> None:
    version = published_version(store, tmp_path)
    target = tmp_path / "local" / str(version)
    store.put(f"models/recommend/{version}/saved_model.pb", b"grapf")  # same size, other bytes
    with pytest.raises(DataError, match="do not match the manifest's digests"):
        versions.download_version(store, "recommend", version, target)
    assert list(target.parent.iterdir()) == []


def test_a_download_of_a_version_that_lost_a_file_names_it(store: ObjectStore, tmp_path: Path) -> None:
    version = published_version(store, tmp_path)
    store.delete([f"models/recommend/{version}/saved_model.pb"])
    with pytest.raises(DataError, match=r"missing or have another size\nsaved_model\.pb"):
        versions.download_version(store, "recommend", version, tmp_path / "local" / str(version))


def test_a_bad_local_copy_is_replaced(store: ObjectStore, tmp_path: Path) -> None:
    version = published_version(store, tmp_path)
    target = tmp_path / "local" / str(version)
    manifest = versions.download_version(store, "recommend", version, target)
    (target / "saved_model.pb").write_bytes(b"grapf")
    (target / "added").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="2 files"):
        versions.check_directory(manifest, target)
    versions.download_version(store, "recommend", version, target)
    versions.check_directory(manifest, target)


def test_a_copy_that_is_mended_has_no_graph_before_its_variables(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes a directory with a graph for a version, and would find it without variables."""
    version = published_version(store, tmp_path)
    local = tmp_path / "models" / str(version)
    local.mkdir(parents=True)  # what is left of a version that somebody emptied
    moved, real = [], Path.replace

    def move(self: Path, target: Path) -> Path:
        moved.append((target.name, (local / "saved_model.pb").exists()))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", move)
    versions.download_version(store, "recommend", version, local)
    assert moved[-2:] == [("variables.index", False), ("saved_model.pb", False)]


def test_a_version_that_was_never_published_names_those_that_were(store: ObjectStore, tmp_path: Path) -> None:
    published_version(store, tmp_path)
    with pytest.raises(DataError, match=r"20110830009 is not published\nnewest published: 20110830001"):
        versions.download_version(store, "recommend", 20110830009, tmp_path / "local")


def a_manifest(path: str) -> dict[str, Any]:
    return {
        "ranker": "recommend",
        "version": 20110830001,
        "kind": "next_item",
        "created_at": "2011-08-31T03:00:00Z",
        "files": {path: {"sha256": "0" * 64, "size": 1}},
        "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
        "gate": {"verdict": "promote"},
    }


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "", ".", "manifest.json", "a\\b", "a\0b"],
    ids=repr,
)
def test_a_manifest_whose_paths_leave_the_directory_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="path"):
        Manifest.model_validate(a_manifest(path))


@given(st.text("./a\\ ", max_size=12))
def test_a_path_that_a_manifest_accepts_stays_inside(path: str) -> None:
    try:
        manifest = Manifest.model_validate(a_manifest(path))
    except ValidationError:
        return
    root = Path("/srv/of/version")
    assert Path(os.path.normpath(root / next(iter(manifest.files)))).parent.is_relative_to(root)


@pytest.mark.parametrize(
    "change",
    [{"version": 7}, {"ranker": "search"}, {"files": {}}, {"lineage": None}],
    ids=["other version", "other ranker", "no files", "no lineage"],
)
def test_a_manifest_that_does_not_fit_is_refused(
    store: ObjectStore, tmp_path: Path, change: dict[str, Any]
) -> None:
    version = published_version(store, tmp_path)
    key = f"models/recommend/{version}/manifest.json"
    store.put_json(key, signed_manifest({**store.get_json(key), "gate_signature": None, **change}))
    with pytest.raises(DataError, match="its manifest is"):
        versions.read_manifest(store, "recommend", version)


def test_a_manifest_of_newer_code_can_be_read(store: ObjectStore, tmp_path: Path) -> None:
    version = published_version(store, tmp_path)
    key = f"models/recommend/{version}/manifest.json"
    newer = {**store.get_json(key), "added_later": 1}
    store.put_json(key, signed_manifest(newer))
    read = versions.read_manifest(store, "recommend", version)
    assert read is not None and read.version == version


@given(
    st.dates(min_value=date(1970, 1, 1)),
    st.integers(1, 999),
    st.dates(min_value=date(1970, 1, 1)),
    st.integers(1, 999),
)
def test_integers_sort_by_partition_then_attempt(a: date, n: int, b: date, m: int) -> None:
    assert partition_of(version_number(a, n)) == a
    assert (version_number(a, n) < version_number(b, m)) == ((a, n) < (b, m))


@pytest.mark.parametrize("version", [7, 20111399001, -1])
def test_other_integers_are_no_versions(version: int) -> None:
    with pytest.raises(DataError, match="is not a version"):
        partition_of(version)
