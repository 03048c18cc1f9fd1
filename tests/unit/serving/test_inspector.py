"""Files that change after they were verified: what may be loaded, what goes on serving, what is given up."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.graphs import graph_bytes

from reshelve.agent.disk import Disk
from reshelve.agent.inspector import Inspector
from reshelve.agent.server_plan import Observed, VersionState
from reshelve.processes import wait_until
from reshelve.settings import settings
from reshelve.store.manifest import Manifest
from reshelve.store.roles import Role
from reshelve.store.signatures import make_key_pair
from reshelve.store.verdicts import signed_manifest
from reshelve.store.versions import describe_directory

ONE = 20110830001
SERVES = {"recommend": Observed({ONE: VersionState.AVAILABLE})}


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A verified copy on a host's disk."""
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    for role in (Role.BUILD, Role.GATE):
        make_key_pair(role)
    directory = tmp_path / "models" / "recommend" / str(ONE)
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(graph_bytes("graph"))
    (directory / "variables" / "weights").write_bytes(b"1")
    manifest = Manifest.model_validate(
        {
            "ranker": "recommend",
            "version": ONE,
            "kind": "next_item",
            "created_at": "2011-08-31T03:00:00Z",
            "files": describe_directory(directory),
            "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
            "gate": {"verdict": "promote"},
        }
    )
    body = json.dumps(signed_manifest(manifest.model_dump(mode="json")))
    (directory.parent / f".manifest-{ONE}.json").write_text(body)
    return directory


@pytest.fixture
def disk(version: Path) -> Disk:
    found = Disk(version.parent.parent)
    found.start()
    assert found.sound("recommend") == {ONE}
    return found


@pytest.fixture
def inspector(disk: Disk) -> Iterator[Inspector]:
    made = Inspector(disk)
    yield made
    made.close()


def change(version: Path) -> None:
    """Other bytes, of the same size and, as far as whoever writes them can say, of the same time."""
    path = version / "saved_model.pb"
    before = path.stat()
    path.write_bytes(graph_bytes("grapf"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_what_was_changed_is_not_loaded(version: Path, disk: Disk, inspector: Inspector) -> None:
    assert inspector.ready("recommend", ONE)
    change(version)
    assert disk.sound("recommend") == frozenset() and not inspector.ready("recommend", ONE)
    inspector.look({})
    assert disk.of("recommend") == frozenset(), "it is copied again"


@pytest.mark.parametrize("how", ["a link in place of a file", "a file more", "a file less", "all gone"])
def test_whatever_was_changed_is_seen(version: Path, disk: Disk, how: str) -> None:
    weights = version / "variables" / "weights"
    if how == "a file more":
        (version / "variables" / "more").touch()
    elif how == "all gone":
        shutil.rmtree(version)
    else:
        weights.unlink()
        if how == "a link in place of a file":
            weights.symlink_to(version / "saved_model.pb")
    assert disk.sound("recommend") == frozenset()


def test_a_load_waits_until_all_bytes_were_read_lately(
    disk: Disk, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reshelve.agent.inspector._FRESH_SECONDS", -1.0)
    assert not inspector.ready("recommend", ONE)
    verified = disk.verified_at("recommend", ONE)

    def verified_again() -> bool:
        inspector.look({})
        return disk.verified_at("recommend", ONE) > verified

    wait_until(verified_again, 30, "the verification")
    monkeypatch.undo()
    assert inspector.ready("recommend", ONE)


def test_several_versions_are_ready_together_however_long_each_takes(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a moment in which a verification is fresh: as when reading all of them takes longer than that."""
    models = version.parent.parent
    numbers = [ONE, ONE + 1, ONE + 2]
    for number in numbers[1:]:
        another_version(version, number)
    disk = Disk(models)
    disk.start()
    assert disk.sound("recommend") == set(numbers)
    inspector = Inspector(disk)
    monkeypatch.setattr("reshelve.agent.inspector._FRESH_SECONDS", -1.0)

    def ready() -> bool:
        inspector.look({})
        return [inspector.ready("recommend", number) for number in numbers] == [True] * len(numbers)

    assert not ready()
    wait_until(ready, 30, "all of them")
    # Once nobody has asked for them for a while (they were loaded), the next load has them read again.
    for _ in range(2):
        inspector.look({})
    assert not inspector.ready("recommend", ONE)
    inspector.close()


def another_version(version: Path, number: int) -> None:
    shutil.copytree(version, version.with_name(str(number)))
    manifest = json.loads(version.with_name(f".manifest-{ONE}.json").read_text())
    unsigned = {key: value for key, value in manifest.items() if key != "signature"} | {"version": number}
    body = json.dumps(signed_manifest(unsigned))
    version.with_name(f".manifest-{number}.json").write_text(body)


def test_what_serves_goes_on_while_its_files_are_wrong(
    version: Path, disk: Disk, inspector: Inspector
) -> None:
    inspector.look(SERVES)
    change(version)

    def spoiled() -> bool:
        inspector.look(SERVES)
        return disk.is_spoiled("recommend", ONE)

    wait_until(spoiled, 30, "the verification")
    assert disk.of("recommend") == {ONE} and disk.sound("recommend") == frozenset()
    inspector.look({"recommend": Observed()})  # it came back without it
    assert disk.of("recommend") == frozenset()


def test_what_a_server_may_have_loaded_of_changed_files_is_given_up(
    version: Path, disk: Disk, inspector: Inspector
) -> None:
    inspector.look(SERVES)
    change(version)
    inspector.server_is_away()
    inspector.look(SERVES)  # back, of whatever it found
    assert disk.of("recommend") == frozenset()


def test_a_file_that_was_only_touched_is_sound_again(version: Path, disk: Disk, inspector: Inspector) -> None:
    inspector.look(SERVES)
    (version / "saved_model.pb").touch()
    assert disk.sound("recommend") == frozenset()

    def sound() -> bool:
        inspector.look(SERVES)
        return disk.sound("recommend") == {ONE}

    wait_until(sound, 30, "the verification")
