"""A night ends as it began, whatever is edited or deployed meanwhile; the next one takes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reshelve import kept
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.lineage.run import Run, run_stage
from reshelve.model.base import resolve_base
from reshelve.model.kept_base import keep_base, recorded_base
from reshelve.pipeline import pinned_code
from reshelve.pipeline.pinned_night import Pin, begin, begun, differences, go_on, rules_of
from reshelve.pipeline.references import load_ranker
from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore
from reshelve.verbs.options import run_of

DAY = "2011-08-30"


@pytest.fixture
def rankers(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ranker files that a test may edit."""
    folder = tmp_path / "rankers"
    shutil.copytree(PROJECT / "include" / "rankers", folder)
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(folder))
    settings.cache_clear()
    return folder


@pytest.fixture
def in_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process passes for one that runs the copy of its own code, which it would have to become else."""
    monkeypatch.setenv("RESHELVE_PROJECT", str(PROJECT))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def begin_night(ranker: str = "recommend", **values: Any) -> dict[str, Any]:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return begin(Run.of(load_ranker(ranker, dotted), date.fromisoformat(DAY)), dotted)


def pin_of(store: ObjectStore, night: dict[str, Any]) -> dict[str, Any]:
    return dict(store.get_json(f"runs/{night['run']}/pin.json") or {})


def test_an_edit_of_the_ranker_file_is_for_the_next_night(rankers: Path, in_copy: None) -> None:
    night = begin_night(training__max_minutes=7)
    first = go_on("recommend", DAY, night["digest"])
    run_stage(first, "examples", lambda run: {"rows": 1})
    edit(rankers / "recommend.yaml", "window_days: ", "window_days: 1")
    later = go_on("recommend", DAY, night["run"])  # the id is as good as its end
    assert later.id == first.id == night["run"]
    assert later.ranker == first.ranker and later.ranker.training.max_minutes == 7
    assert later.stage("examples").required()["rows"] == 1
    following = begin_night(training__max_minutes=7)
    assert following["digest"] != night["digest"]
    assert begun("recommend", DAY, following["run"]).ranker.data.window_days > 100
    with pytest.raises(TryAgainError, match="stage examples is not done"):
        begun("recommend", DAY, following["run"]).stage("examples").required()


def test_a_night_pinned_with_the_old_name_of_a_section_goes_on(
    store: ObjectStore, rankers: Path, in_copy: None
) -> None:
    night = begin_night(tuning__trials=3)
    pin = pin_of(store, night)
    ranker = {("search" if key == "tuning" else key): value for key, value in pin["ranker"].items()}
    old = {**pin, "ranker": ranker, "values": {"search.trials": 3}}
    store.put_json(f"runs/{night['run']}/pin.json", old)
    with capture_logs() as said:
        later = go_on("recommend", DAY, night["digest"])
    assert later.id == night["run"] and later.ranker.tuning.trials == 3
    assert [
        entry["event"] for entry in said if "now" in entry["event"]
    ] == []  # nobody can rename it in a pin
    assert list(differences(later.ranker, Pin.model_validate(old))) == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda file: file.write_text("name: ["), id="no YAML by now"),
        pytest.param(lambda file: file.unlink(), id="deleted"),
        pytest.param(lambda file: edit(file, "source: retail", "source: nothing"), id="another source"),
        pytest.param(lambda file: edit(file, "kind: next_item", "kind: search"), id="another kind"),
    ],
)
def test_a_night_goes_on_whatever_becomes_of_its_file(
    rankers: Path, in_copy: None, spoil: Callable[[Path], None]
) -> None:
    night = begin_night()
    before = load_ranker("recommend")
    spoil(rankers / "recommend.yaml")
    run = go_on("recommend", DAY, night["digest"])
    assert run.ranker == before and run.id == night["run"]


def test_a_night_goes_on_without_the_mapping_file_that_it_refers_to(
    rankers: Path, in_copy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = begin_night()
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path / "empty"))
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match="not a clickstream source"):
        load_ranker("recommend")
    assert go_on("recommend", DAY, night["digest"]).id == night["run"]


def test_two_rankers_at_once_are_two_nights_of_one_code(rankers: Path, in_copy: None) -> None:
    nights = {name: begin_night(name) for name in ("recommend", "ads")}
    edit(rankers / "ads.yaml", "name: ads", "name: ads\nowner: someone")
    found = {name: go_on(name, DAY, night["digest"]) for name, night in nights.items()}
    assert {name: run.ranker.name for name, run in found.items()} == {"recommend": "recommend", "ads": "ads"}
    assert len({pinned_code.kept_code(run.work / run.id) for run in found.values()}) == 1
    with pytest.raises(ConfigurationError, match="no night began"):
        go_on("ads", DAY, nights["recommend"]["digest"])


def test_what_is_different_by_now_is_said(
    rankers: Path, store: ObjectStore, in_copy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = begin_night(training__epochs=3)
    pin = Pin.model_validate(pin_of(store, night))
    ranker = begun("recommend", DAY, night["digest"]).ranker
    monkeypatch.setattr(pinned_code, "deployed_digest", lambda: pin.code)
    assert list(differences(ranker, pin)) == []
    edit(rankers / "recommend.yaml", "window_days: ", "window_days: 1")
    assert "data.window_days" in "\n".join(differences(ranker, pin))
    assert "training.epochs" not in "\n".join(differences(ranker, pin)), "the run's own value is no change"
    (rankers / "recommend.yaml").write_text("name: [")
    other = pin.model_copy(update={"packages": {**pin.packages, "torch": "1.0"}})
    said = "\n".join(differences(ranker, other))
    assert "the ranker file is wrong by now" in said and "torch: 1.0 → " in said


def test_without_its_code_a_night_goes_on_with_what_is_deployed_and_says_so(
    rankers: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine, which was given other code before its first stage of the night."""
    night = begin_night()
    store.put_json(f"runs/{night['run']}/pin.json", {**pin_of(store, night), "code": "0" * 16})
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "another machine"))
    settings.cache_clear()
    run = go_on("recommend", DAY, night["digest"])
    assert run.id == night["run"], "the stages that are done stay"
    pin = Pin.model_validate(pin_of(store, night))
    assert "is not kept on this machine" in "\n".join(differences(run.ranker, pin))


def test_a_machine_keeps_the_code_with_its_first_stage(
    rankers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = begin_night()
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "another machine"))
    settings.cache_clear()
    with pytest.raises(pinned_code.OtherCodeError) as other:
        go_on("recommend", DAY, night["digest"])
    assert other.value.code.parent == tmp_path / "another machine" / "work" / ".code"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param("0123456789ab", "no night began", id="never begun"),
        pytest.param("../../x", "12 hex digits", id="a path"),
        pytest.param("ads/2011-08-30/0123456789ab", "no run of recommend", id="of another ranker"),
        pytest.param("recommend/2011-08-29/0123456789ab", "on 2011-08-30", id="of another day"),
        pytest.param("", "12 hex digits", id="empty"),
    ],
)
def test_a_run_that_there_is_not_is_refused(rankers: Path, asked: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        go_on("recommend", DAY, asked)


def test_a_pin_holds_no_secret(rankers: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESHELVE_PSEUDONYM_KEYS", "RESHELVE_ALERT_WEBHOOK"):
        monkeypatch.setenv(name, "2011-01-01:hunter2")
    night = begin_night()
    text = json.dumps(pin_of(store, night))
    assert "hunter2" not in text and os.environ["AWS_SECRET_ACCESS_KEY"] not in text


def test_the_release_of_a_night_goes_by_its_own_rules(rankers: Path) -> None:
    night = begin_night(release__approval=True, release__ready_seconds=77)
    rules = rules_of("recommend", night["run"]).release
    assert (rules.ready_seconds, rules.approval) == (77, False), "who is asked is as the file says now"
    assert rules_of("recommend", None).release.ready_seconds != 77
    (rankers / "recommend.yaml").write_text("name: [")
    assert rules_of("recommend", night["run"]).release.approval is True
    assert rules_of("recommend", None).release.ready_seconds == 77, (
        "a release under way is not lost with its file"
    )
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD"):
        rules_of("recommend", night["digest"])


def test_copies_that_nothing_uses_go(tmp_path: Path) -> None:
    for name, days in (("old", kept.UNUSED_DAYS + 1), ("young", 1)):
        (tmp_path / name).mkdir()
        at = (tmp_path / name).stat().st_mtime - days * 86_400
        os.utime(tmp_path / name, (at, at))
    (tmp_path / "name").symlink_to("gone")
    kept.forget_unused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The files that a base has; nothing here reads what is in them."""
    (tmp_path / "base").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / "base" / name).write_text(f"{name} of then")
    return tmp_path / "base"


@pytest.mark.parametrize("replaced", ["tokenizer.json", "model.safetensors"])
def test_a_base_that_is_edited_meanwhile_is_read_as_it_was(
    store: ObjectStore, base: Path, replaced: str
) -> None:
    began = resolve_base(str(base), store)
    keep_base(str(base), began)
    (base / replaced).write_bytes(b"something else")
    found = recorded_base(str(base), began.record(), store)
    assert found.files == began.files and found.record() == began.record()
    shutil.rmtree(base)
    assert recorded_base(str(base), began.record(), store).files == began.files
    shutil.rmtree(settings().home / "base")
    with pytest.raises(ConfigurationError):
        recorded_base(str(base), began.record(), store)


def test_a_base_on_s3_that_is_replaced_is_read_as_it_was(store: ObjectStore, base: Path) -> None:
    uri = f"s3://{store.bucket}/bases/one"
    store.upload_directory(base, "bases/one")
    began = resolve_base(uri, store)
    keep_base(uri, began)
    store.put("bases/one/tokenizer.json", b"{}")
    assert resolve_base(uri, store).files != began.files
    assert recorded_base(uri, began.record(), store).files == began.files


def test_a_base_is_kept_when_the_night_begins(rankers: Path, store: ObjectStore, base: Path) -> None:
    """Its examples may wait for hours for the day's verdict."""
    ranker = load_ranker("recommend").with_values({"model.base": str(base)})
    began = resolve_base(str(base), store)
    night = begin(Run.of(ranker, date.fromisoformat(DAY)), {})
    (base / "tokenizer.json").write_bytes(b"{}")
    run = begun("recommend", DAY, night["digest"])
    assert run.base is not None
    assert recorded_base(str(base), run.base, store).files == began.files


class Deployed:
    """A deployment of this project in a folder of its own, whose `reshelve` is run as a user would."""

    def __init__(self, folder: Path) -> None:
        self.include = folder / "include"
        shutil.copytree(
            PROJECT / "include" / "reshelve",
            self.include / "reshelve",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (self.include / "reshelve" / ".env").write_text("SECRET=hunter2")
        shutil.copytree(PROJECT / "include" / "clickstreams", self.include / "clickstreams")
        self.said = ""

    def reshelve(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "reshelve.cli", *arguments, "--json"],
            env={**os.environ, "PYTHONPATH": str(self.include)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        self.said = done.stderr
        return dict(json.loads(done.stdout)) if code == 0 else {}


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    yield Deployed(tmp_path / "deployed")


@pytest.mark.slow
def test_stages_of_a_night_run_the_code_that_it_began_with(rankers: Path, deployed: Deployed) -> None:
    night = ["--ranker=recommend", f"--partition={DAY}"]
    began = deployed.reshelve("begin", *night, "--set=training.epochs=3")
    copies = list((settings().work / ".code").iterdir())
    assert len(copies) == 1 and not list(copies[0].rglob(".env"))
    # Not a file that `begin` reads: a stage of this code would end with 99.
    edit(
        deployed.include / "reshelve" / "tuning" / "tune.py",
        "def tell(",
        "raise SystemExit(99)\n\n\ndef tell(",
    )
    edit(rankers / "recommend.yaml", "window_days: ", "window_days: 1")
    assert deployed.reshelve("tune", "ask", *night, f"--run={began['digest']}")["trials"] == [0, 1]
    assert f"run={began['run']}" in deployed.said and "{'training.epochs': 3}" in deployed.said
    assert "other code has been deployed since" in deployed.said and "data.window_days" in deployed.said
    following = deployed.reshelve("begin", *night, "--set=training.epochs=3")
    assert following["digest"] != began["digest"]
    deployed.reshelve("tune", "ask", *night, f"--run={following['digest']}", code=99)


def test_a_night_that_has_begun_takes_no_other_values(rankers: Path) -> None:
    with pytest.raises(ConfigurationError, match="--set with --run"):
        run_of("recommend", DAY, ["training.epochs=2"], begin_night()["digest"])
