"""The agent's own parts, without a model server: its disk, its copies, its view of S3, its reports."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tests.graphs import graph_bytes

from reshelve.agent import agent as agent_module
from reshelve.agent.agent import Agent, run_agent
from reshelve.agent.server_plan import Observed, VersionState
from reshelve.deployments.deployment_log import pointer_key, read_log
from reshelve.errors import AlreadyRunningError, ConfigurationError, TryAgainError
from reshelve.processes import free_port, wait_until
from reshelve.protocol import pointers as pointers_module
from reshelve.protocol.model_config import ModelEntry, parse_message, read_config, write_config
from reshelve.protocol.reports import Report, live_reports, read_reports, write_report
from reshelve.settings import PROJECT, settings
from reshelve.store import verdicts
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import describe_directory

ONE = 20110830001
GRAPH, OTHER = graph_bytes("graph"), graph_bytes("grapf")  # of one size


@pytest.fixture
def version(store: ObjectStore, tmp_path: Path, make_stable: Callable[..., Any]) -> int:
    """A published version that is stable; its bytes are no model, and no server is there to mind."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "saved_model.pb").write_bytes(GRAPH)
    store.upload_directory(source, f"models/recommend/{ONE}")
    store.put(f"models/recommend/{ONE}/manifest.json", signed_manifest(ONE, source))
    make_stable(store, "recommend", ONE)
    return ONE


def signed_manifest(version: int, directory: Path | None = None) -> bytes:
    """The manifest of a version as it lies beside it; without a directory, of bytes that are nowhere."""
    files: Any = {"saved_model.pb": {"sha256": "0" * 64, "size": 1}}
    manifest = Manifest.model_validate(
        {
            "ranker": "recommend",
            "version": version,
            "kind": "next_item",
            "created_at": "2011-08-31T03:00:00Z",
            "files": describe_directory(directory) if directory else files,
            "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
            "gate": {"verdict": "promote"},
        }
    )
    return json.dumps(verdicts.signed_manifest(manifest.model_dump(mode="json"))).encode()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def start(store: ObjectStore, models: Path) -> Iterator[Callable[[], Agent]]:
    """Start an agent in this process, as often as a test wants; its model server is away."""
    started: list[Agent] = []

    def begin() -> Agent:
        started.append(Agent(models, f"127.0.0.1:{free_port()}", "a", store, store))
        started[-1].start()
        return started[-1]

    yield begin
    for agent in started:
        agent.close()


def copied(agent: Agent) -> Agent:
    def look() -> bool:
        agent.round()
        return ONE in agent.disk.of("recommend")

    wait_until(look, 30, "the copy")
    return agent


def the_report(store: ObjectStore) -> Report:
    (report,) = live_reports(store, "recommend")
    return report


def test_it_copies_and_reports_while_the_server_is_away(
    store: ObjectStore, models: Path, version: int, start: Callable[[], Agent]
) -> None:
    copied(start())
    assert (models / "recommend" / str(version) / "saved_model.pb").read_bytes() == GRAPH
    report = the_report(store)
    assert report.sequence == 4 and report.serving.available == ()
    assert report.error is not None and "cannot be reached" in report.error


def test_a_server_that_runs_as_another_user_can_read_what_it_loads(
    store: ObjectStore, models: Path, version: int, start: Callable[[], Agent]
) -> None:
    scripts = [PROJECT / "include" / "compose" / name for name in ("model-server.sh", "ready.sh")]
    by_scripts = {name for path in scripts for name in re.findall(r"\$models/([\w.]+)", path.read_text())}
    assert by_scripts == {"models.config", "labels.wanted"}
    before = os.umask(0o077)  # as every process of ours has it
    try:
        models.chmod(0o700)
        copied(start()).round()
        directory = models / "recommend" / str(version)
        for path in (models / name for name in by_scripts):
            assert path.stat().st_mode & 0o777 == 0o644, path
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o700)
        for name in by_scripts:
            (models / name).chmod(0o600)
        start().round()  # a killed agent's copy, verified but not opened
    finally:
        os.umask(before)
    read = [models, models / "recommend", *directory.rglob("*"), *(models / name for name in by_scripts)]
    read += (models / ".placeholder").rglob("*")
    for path in read:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_at_its_start_it_keeps_what_verifies_and_removes_the_rest(
    models: Path, version: int, start: Callable[[], Agent]
) -> None:
    copied(start()).close()
    ranker = models / "recommend"
    for left in (
        20110831001,
        20110829001,
        20110828001,
    ):  # killed while it copied, while it deleted, while it copied
        (ranker / f".manifest-{left}.json").write_bytes(signed_manifest(left))
    for path in (".incoming-20110831001", ".removed-20110829001", "20110828001"):
        (ranker / path).mkdir()
    (ranker / ".load-20110828001.json.partial").touch()
    entry = ModelEntry(
        "recommend", ranker, frozenset({version, 20110828001}), {"stable": version, "canary": 20110828001}
    )
    write_config(models, [entry])
    again = start()
    assert again.disk.of("recommend") == {version}
    assert sorted(path.name for path in ranker.iterdir()) == [f".manifest-{version}.json", str(version)]
    assert read_config(models)["recommend"] == ModelEntry(
        "recommend", ranker, frozenset({version}), {"stable": version}
    )


def test_a_version_whose_graph_is_no_longer_allowed_is_not_counted_and_not_deleted(
    store: ObjectStore, models: Path, tmp_path: Path, make_stable: Callable[..., Any], start: Callable[[], Agent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An agent that was started without the installation's own operations: the server may have it loaded."""
    monkeypatch.setenv("RESHELVE_GRAPH_OPERATIONS", "OurOwn")
    settings.cache_clear()
    source = tmp_path / "source"
    source.mkdir()
    saved = SavedModel.FromString(GRAPH)
    saved.meta_graphs[0].graph_def.node.add(name="own", op="OurOwn")
    (source / "saved_model.pb").write_bytes(saved.SerializeToString())
    store.upload_directory(source, f"models/recommend/{ONE}")
    store.put(f"models/recommend/{ONE}/manifest.json", signed_manifest(ONE, source))
    make_stable(store, "recommend", ONE)
    copied(start()).close()
    monkeypatch.delenv("RESHELVE_GRAPH_OPERATIONS")
    settings.cache_clear()
    without = start()

    def refused() -> bool:
        without.round()
        return ONE in without.copier.failures("recommend")

    wait_until(refused, 30, "the refusal")
    assert without.disk.of("recommend") == frozenset()
    directory = models / "recommend" / str(ONE)
    assert (directory / "saved_model.pb").is_file() and without.disk.refused("recommend") == {ONE}
    assert read_config(models) == {}
    without.close()
    monkeypatch.setenv("RESHELVE_GRAPH_OPERATIONS", "OurOwn")
    settings.cache_clear()
    again = start()
    assert again.disk.of("recommend") == {ONE} and again.disk.refused("recommend") == frozenset()
    again.disk.remove("recommend", ONE)
    assert not directory.exists()


def test_a_ranker_whose_files_are_read_again_keeps_no_other_one_back(
    version: int, start: Callable[[], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = copied(start())
    folder = agent.models / "recommend"
    ours = ModelEntry("recommend", folder, frozenset({version}), {"stable": version})
    other = ModelEntry("ads", agent.models / "ads", frozenset({5}), {"stable": 5})
    entries = {"recommend": ours, "ads": other}
    observed = {"recommend": Observed(), "ads": Observed({5: VersionState.AVAILABLE}, {"stable": 5})}
    monkeypatch.setattr("reshelve.agent.inspector._FRESH_SECONDS", -1.0)
    assert agent._held_or_ready(entries, observed) == {"ads": other}
    assert agent.waiting == {"recommend": ours}, "it is not forgotten"

    def read() -> bool:
        agent.inspector.look(observed)
        return agent._held_or_ready(entries, observed) == entries

    wait_until(read, 30, "the verification")
    assert agent.waiting == {}


@pytest.mark.parametrize("change", ["other bytes", "an added file", "a lost file"])
def test_a_copy_that_changed_on_disk_is_removed_and_copied_again(
    models: Path, version: int, start: Callable[[], Agent], change: str
) -> None:
    copied(start()).close()
    directory = models / "recommend" / str(version)
    if change == "other bytes":
        (directory / "saved_model.pb").write_bytes(OTHER)
    elif change == "an added file":
        (directory / "added").touch()
    else:
        (directory / "saved_model.pb").unlink()
    write_config(
        models, [ModelEntry("recommend", directory.parent, frozenset({version}), {"stable": version})]
    )
    again = start()
    assert read_config(models) == {} and not directory.exists()
    copied(again)
    assert (directory / "saved_model.pb").read_bytes() == GRAPH


def test_the_longer_the_server_is_away_the_less_it_is_asked_to_start_from(
    models: Path, version: int, start: Callable[[], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(start()).close()
    agent = start()
    agent.round()
    assert read_config(models) == {}  # it never answered here
    agent.loads.records.available("recommend", version)
    agent.round()
    found = read_config(models)["recommend"]
    assert (found.versions, dict(found.labels)) == ({version}, {"stable": version})
    monkeypatch.setattr(agent_module, "_NARROW_SECONDS", 0)
    agent.round()
    found = read_config(models)["recommend"]
    assert (found.versions, dict(found.labels)) == ({version}, {})
    monkeypatch.setattr(agent_module, "_EMPTY_SECONDS", 0)
    agent.round()
    assert read_config(models) == {}
    agent.close()
    listed = ModelEntry("recommend", models / "recommend", frozenset({version}), {"stable": version})
    write_config(models, [listed])  # killed before it wrote the file
    start()
    assert read_config(models) == {}  # nor does the next agent trust it


def test_what_has_no_manifest_of_ours_is_nobodys_to_delete(
    store: ObjectStore, models: Path, version: int, start: Callable[[], Agent]
) -> None:
    """Another team's versions, files and model list beside ours, and one in the way of ours."""
    (models / "theirs" / "1").mkdir(parents=True)
    (models / "theirs" / "1" / "saved_model.pb").write_bytes(b"theirs")
    (models / "theirs" / ".incoming-3").mkdir()
    (models / "recommend" / str(version)).mkdir(parents=True)
    (models / "recommend" / str(version) / "saved_model.pb").write_bytes(OTHER)
    theirs = f'''model_config_list {{
  config {{ name: "theirs" base_path: "{models}/theirs" model_platform: "tensorflow" }}  # ours
}}
'''
    (models / "models.config").write_text(theirs)
    before = sorted(path for path in models.rglob("*") if path.name != ".agent.lock")
    agent = start()

    def reported() -> bool:
        agent.round()
        return any(version in report.failures for report in live_reports(store, "recommend"))

    wait_until(reported, 30, "the report")
    assert "in the way" in the_report(store).failures[version]
    assert (models / "models.config").read_text() == theirs
    assert set(before) <= set(models.rglob("*"))
    (models / "recommend" / str(version) / "saved_model.pb").write_bytes(GRAPH)  # the very bytes: taken over
    copied(agent)
    agent.loads.records.available("recommend", version)
    agent.round()
    listed = {
        config.name: config
        for config in parse_message((models / "models.config").read_text()).model_config_list.config
    }
    assert listed.keys() == {"theirs", "recommend"}
    assert not listed["theirs"].HasField("model_version_policy")
    added = (models / "models.config").read_text().replace('name: "theirs"', 'name: "new"')
    (models / "models.config").write_text("")  # they are writing it
    agent.round()
    (models / "models.config").write_text(added)
    for _ in range(2):  # looked at twice, as it may not be whole
        assert agent.start_file.names_of_others() == {"theirs"}
        agent.round()
    assert agent.start_file.names_of_others() == {"new", "theirs"}  # the folder is theirs still
    assert (models / "models.config").read_text() == added
    assert (models / "theirs" / "1" / "saved_model.pb").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("model_config_list {", "not a model list of Reshelve's agent", id="no model list"),
        pytest.param("custom_model_config {}", "not one that it could keep", id="of another kind"),
        pytest.param(
            'model_config_list { config { name: "recommend" base_path: "/theirs" model_platform: "tensorflow" } }',
            "has a model recommend that is not Reshelve's",
            id="a model of a ranker's name",
        ),
        pytest.param(None, "holds versions that are not Reshelve's", id="versions, and no list"),
    ],
)
def test_where_what_is_others_cannot_be_kept_it_does_not_start(
    store: ObjectStore, models: Path, version: int, start: Callable[[], Agent], text: str | None, says: str
) -> None:
    (models / "theirs" / "1").mkdir(parents=True)
    (models / "theirs" / "1" / "saved_model.pb").write_bytes(b"theirs")
    if text is not None:
        (models / "models.config").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        start()
    assert (models / "models.config").is_file() == (text is not None)
    assert text is None or (models / "models.config").read_text() == text


def test_a_ranker_of_anothers_name_or_folder_is_not_copied_there(
    store: ObjectStore, models: Path, start: Callable[[], Agent], request: pytest.FixtureRequest
) -> None:
    """Deployed after the agent began: nothing is written into their folder, and the report says why."""
    theirs = f'config {{ name: "x" base_path: "{models}/recommend" model_platform: "tensorflow" }}'
    (models / "models.config").write_text(f"model_config_list {{ {theirs} }}")
    agent = start()
    version = request.getfixturevalue("version")
    agent.pointers._listed_at = float("-inf")
    for _ in range(3):
        agent.round()
    assert version in the_report(store).failures
    assert not (models / "recommend").exists()
    assert (models / "labels.wanted").read_text() == ""


def test_what_a_server_is_told_leaves_out_models_whose_base_path_is_missing(
    models: Path, start: Callable[[], Agent]
) -> None:
    """TensorFlow Serving lists no versions of anybody while one base path is missing, and waits for a new one for ever."""
    here, gone = models / "here", models / "gone"
    here.mkdir()
    entries = "".join(
        f'config {{ name: "{path.name}" base_path: "{path}" model_platform: "tensorflow" }}'
        for path in (here, gone)
    )
    (models / "models.config").write_text(f"model_config_list {{ {entries} }}")
    agent = start()
    assert [config.name for config in agent.start_file.to_tell()] == ["here"]
    assert agent.start_file.names_of_others() == {"here", "gone"}
    gone.mkdir()
    assert len(agent.start_file.to_tell()) == 2


def test_a_file_that_somebody_damaged_is_put_aside(models: Path, start: Callable[[], Agent]) -> None:
    agent = start()
    agent.round()
    theirs = (models / "models.config").read_text() + "config {"
    (models / "models.config").write_text(theirs)
    for _ in range(3):
        agent.round()
    assert read_config(models) == {}
    assert (models / ".models.config.damaged").read_text() == theirs
    (models / "models.config").write_text("theirs")
    for _ in range(3):
        agent.round()
    assert (models / "models.config").read_text() == "theirs"
    assert "no model list any more" in (agent.reporter.disk_trouble or "")


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_a_torn_file_of_wanted_labels_is_written_anew(
    models: Path, version: int, start: Callable[[], Agent], content: bytes
) -> None:
    (models / "labels.wanted").write_bytes(content)
    start().round()
    assert (models / "labels.wanted").read_bytes() == b"recommend stable\n"


def test_a_version_that_cannot_be_had_here_keeps_no_other_ranker_from_being_ready(
    store: ObjectStore, models: Path, version: int, start: Callable[[], Agent]
) -> None:
    store.put(f"models/recommend/{version}/saved_model.pb", OTHER)
    agent = start()

    def left_out() -> bool:
        agent.round()
        return (models / "labels.wanted").read_bytes() == b""

    wait_until(left_out, 30, "the label to be left out")


def test_with_s3_away_a_restarted_agent_keeps_what_the_server_may_start_from(
    models: Path, version: int, start: Callable[[], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(start()).close()
    listed = ModelEntry("recommend", models / "recommend", frozenset({version}), {"stable": version})
    write_config(models, [listed])
    monkeypatch.setattr(pointers_module, "deployed_rankers", _away)
    agent = start()
    for away in (300.0, 0.0):
        monkeypatch.setattr(agent_module, "_EMPTY_SECONDS", -1 if away else 300)
        agent.round()
    assert read_config(models)["recommend"] == listed


def _away(*_: Any) -> Any:
    raise TryAgainError("S3 is away")


def test_a_full_disk_is_reported_and_tried_again(
    store: ObjectStore, version: int, start: Callable[[], Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start()
    usage = collections.namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))

        def reported() -> bool:
            agent.round()
            return any(
                "the disk is full" in (report.error or "") for report in live_reports(store, "recommend")
            )

        wait_until(reported, 30, "the report")
        assert the_report(store).failures == {}  # it may still work out
    copied(agent)
    agent.round()
    assert "the disk is full" not in (the_report(store).error or "")


def test_bytes_that_differ_from_the_manifest_are_a_lasting_failure(
    store: ObjectStore, models: Path, version: int, start: Callable[[], Agent]
) -> None:
    store.put(f"models/recommend/{version}/saved_model.pb", OTHER)
    agent = start()

    def reported() -> bool:
        agent.round()
        return any(version in report.failures for report in live_reports(store, "recommend"))

    wait_until(reported, 30, "the report")
    assert "do not match the manifest's digests" in the_report(store).failures[version]
    assert not (models / "recommend" / str(version)).exists()


def test_a_damaged_pointer_leaves_the_last_good_one_in_force(
    store: ObjectStore, version: int, start: Callable[[], Agent]
) -> None:
    agent = copied(start())
    store.put(pointer_key("recommend"), b"{")
    agent.round()
    assert agent.pointers.known["recommend"].stable == version
    assert "is damaged" in (the_report(store).error or "")


def test_an_old_pointer_that_was_put_back_changes_nothing(
    store: ObjectStore, version: int, start: Callable[[], Agent]
) -> None:
    """Neither for the agent that has seen a newer one, nor for one that starts: the log leads it to the newest."""
    log = read_log(store, "recommend")
    first = log[0].pointer.model_dump_json().encode()
    seen = start()
    seen.round()
    store.put(pointer_key("recommend"), first)
    fresh = start()
    for agent in (seen, fresh):
        agent.round()
        assert agent.pointers.known["recommend"] == log[-1].pointer
    assert (log[-1].pointer.stable, log[0].pointer.stable) == (version, None)


def test_a_pointer_that_nobody_logged_is_not_followed(
    store: ObjectStore, version: int, start: Callable[[], Agent]
) -> None:
    agent = copied(start())
    forged = read_log(store, "recommend")[-1].pointer.model_copy(
        update={"stable": version + 1, "sequence": 4}
    )
    store.put(pointer_key("recommend"), forged.model_dump_json().encode())
    agent.round()
    assert agent.pointers.known["recommend"].stable == version
    assert "is not what the log says" in (the_report(store).error or "")


def test_a_damaged_config_file_is_written_anew(models: Path, start: Callable[[], Agent]) -> None:
    start().close()
    whole = (models / "models.config").read_text()
    (models / "models.config").write_text(whole[: whole.rindex("}")])
    start()
    assert read_config(models) == {}


def test_a_damaged_report_hides_no_other(
    store: ObjectStore, version: int, start: Callable[[], Agent]
) -> None:
    start().round()
    store.put("deployments/recommend/agents/b.json", b"{")
    assert [report.agent for report in read_reports(store, "recommend")] == ["a"]


@pytest.mark.parametrize("hours", [-24, 24])
def test_an_agent_whose_clock_is_wrong_lives_all_the_same(
    store: ObjectStore, version: int, start: Callable[[], Agent], hours: int
) -> None:
    """And one that is dead does not live because its clock was ahead: the store's clock counts."""
    start().round()
    report = the_report(store)
    write_report(store, "recommend", report.model_copy(update={"at": report.at + timedelta(hours=hours)}))
    assert the_report(store).age() < 5


def test_one_agent_per_directory(store: ObjectStore, models: Path) -> None:
    holder = f"import fcntl, sys; f = open({str(models / '.agent.lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    try:
        with pytest.raises(AlreadyRunningError, match="another agent"):
            run_agent(str(models), "127.0.0.1:1", "a", 1)
    finally:
        other.communicate()


@pytest.mark.parametrize("name", ["", "../x", ".hidden"])
def test_an_agent_needs_a_name_that_can_be_a_file(store: ObjectStore, models: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no agent's name"):
        run_agent(str(models), "127.0.0.1:1", name, 1)
