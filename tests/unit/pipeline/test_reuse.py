"""A run takes over what another run of its day has done, where it would do the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from reshelve.clickstream.forgotten import add_request, read_forgotten, user_digest
from reshelve.errors import DataError
from reshelve.lineage.run import Result, Run, run_stage, stage_prefix
from reshelve.pipeline import retention, reuse
from reshelve.pipeline.plan import plan
from reshelve.pipeline.publish import _require_nobody_forgotten
from reshelve.pipeline.references import load_ranker
from reshelve.pipeline.retention import clean
from reshelve.pipeline.reuse import do_stage, identity_of, planned, take_over
from reshelve.pipeline.stages import stage_of
from reshelve.processes import wait_until
from reshelve.reporting.night import Night
from reshelve.reporting.sections.lineage import stage_seconds
from reshelve.store.objects import ObjectStore
from reshelve.tuning.tune import ask
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

DAY = date(2011, 8, 30)


def judge(store: ObjectStore, day: date, digest: str = "") -> None:
    verdict = PartitionVerdict(
        verdict=PartitionDecision.PASS, headline="as it is", source="retail", partition=day, digest=digest
    )
    store.put_json(verdict_key("retail", day), verdict.result())


@pytest.fixture
def days(store: ObjectStore) -> None:
    for day in (28, 29, 30):
        judge(store, date(2011, 8, day))


def make_run(**values: Any) -> Run:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return Run.of(load_ranker("recommend", dotted), DAY)


def do(run: Run, name: str, **result: Any) -> Result:
    """The stage as its verb does it; its work leaves a file that names the run."""

    def work(run: Run) -> Result:
        (run.stage(name).directory / "made.txt").write_text(f"{name} of {run.id}")
        return {"verdict": "hold", "published": False, **result}

    return do_stage(run, name, work)


@pytest.mark.usefixtures("days")
def test_a_run_takes_over_what_would_be_the_same_and_does_the_rest() -> None:
    first, second = make_run(), make_run(owner="others", gates__slice_tolerance=0.33)
    assert first.id != second.id
    for name in ("examples", "tune", "train", "compress", "package", "gate", "publish"):
        assert do(first, name, rows=1)["reused"] is False
    planned = {stage["stage"]: (stage["reused"], stage["why"]) for stage in plan(second)["stages"]}
    assert planned["train"] == (True, f"run {first.digest} has done it")
    assert planned["gate"] == (False, "gates.slice_tolerance: 0.05 → 0.33")
    done = {name: do(second, name)["reused"] for name in planned}
    assert done == {name: reused for name, (reused, _) in planned.items()}
    assert [name for name, reused in done.items() if not reused] == ["gate", "publish"]
    assert second.stage("train").required()["run"] == first.id
    night = Night.read(second)
    assert set(night.taken_over.values()) == {first.id}
    assert list(stage_seconds(night)) == ["gate", "publish"], "what was taken over cost this night nothing"
    for here in (True, False):  # on this machine, and on another
        assert (second.stage("train").files() / "made.txt").read_text() == f"train of {first.id}"
        assert (second.stage("gate").files() / "made.txt").read_text() == f"gate of {second.id}"
        if here:
            shutil.rmtree(first.work)
    key = f"{stage_prefix(second.store, second.id, 'train')}/made.txt"
    assert (found := second.store.get(key)) and found.body.decode() == f"train of {first.id}"


@pytest.mark.usefixtures("days")
def test_changed_training_takes_over_the_examples_only() -> None:
    first, second = make_run(), make_run(training__epochs=0.7)
    for name in ("examples", "tune", "train"):
        do(first, name)
    assert [do(second, name)["reused"] for name in ("examples", "tune", "train")] == [True, False, False]


@pytest.mark.usefixtures("days")
def test_a_day_that_was_judged_again_is_read_again(store: ObjectStore) -> None:
    first, second = make_run(), make_run(owner="others")
    do(first, "examples")
    judge(store, date(2011, 8, 29), "with what was released")
    [stage, after] = plan(second)["stages"][:2]
    assert (stage["reused"], stage["why"]) == (False, "other verdicts")
    assert after["why"] == "no run of this day has done it"
    assert do(second, "examples")["reused"] is False
    assert do(first, "examples")["reused"] is True, "a run that has done it keeps what it has done"


@pytest.mark.usefixtures("days")
def test_what_was_judged_again_while_it_was_read_is_its_runs_alone(store: ObjectStore) -> None:
    def work(run: Run) -> Result:
        judge(store, DAY, "again")
        return {}

    first = make_run()
    assert run_stage(first, "examples", work, identity_of("examples"))["identity"] == ""
    assert do(make_run(owner="others"), "examples")["reused"] is False
    assert do(first, "tune")["identity"] == "", "nobody knows what it was made of"


@pytest.mark.usefixtures("days")
def test_a_result_of_before_there_were_identities_is_not_taken_over() -> None:
    first, second = make_run(), make_run(owner="others")
    first.stage("examples").commit({"train": 7, "run": first.id})
    assert plan(first)["stages"][0]["reused"] is True
    assert do(second, "examples")["reused"] is False


@pytest.mark.usefixtures("days")
def test_tuning_that_another_run_has_told_asks_for_nothing() -> None:
    first, second = make_run(), make_run(owner="others")
    do(first, "examples"), do(first, "tune", trials=4)
    do(second, "examples")
    assert take_over(second, "tune") is True
    assert ask(second) == {"trials": [], "finished": 4}
    other = make_run(tuning__trials=3)
    do(other, "examples")
    assert take_over(other, "tune") is False


@pytest.mark.usefixtures("days")
def test_what_follows_a_stage_that_is_not_declared_is_its_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a kind that adds a stage of its own between train and compress."""
    night = (*map(stage_of, ("examples", "tune", "train", "toy", "compress")),)
    monkeypatch.setattr(reuse, "stages_of", lambda ranker: night)
    first, second = make_run(), make_run(owner="others")
    for name in ("examples", "tune", "train", "toy", "compress"):
        do(first, name)
    done = [do(second, name)["reused"] for name in ("examples", "tune", "train", "toy", "compress")]
    assert done == [True, True, True, False, False]


TWO = """
import json, sys, time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from reshelve.pipeline.references import load_ranker
from reshelve.errors import DataError
from reshelve.lineage.run import Run, run_stage
from reshelve.pipeline.reuse import identity_of

def work(run):
    with open(sys.argv[1], "a") as done:
        done.write("once\\n")
    while len(list(ready.glob("*"))) < 2:
        time.sleep(0.02)
    return {"rows": 1}

ready = Path(sys.argv[3])
(ready / sys.argv[2]).touch()  # whoever does it goes on only when the other is about to ask for it
run = Run.of(load_ranker("recommend", {"owner": sys.argv[2]}), date(2011, 8, 30))
print(json.dumps(run_stage(run, "examples", work, identity_of("examples"))))
"""


@pytest.mark.usefixtures("days")
def test_two_runs_at_once_do_what_they_share_once(tmp_path: Path) -> None:
    (ready := tmp_path / "ready").mkdir()
    arguments = [sys.executable, "-c", TWO, str(tmp_path / "done")]
    commands = [[*arguments, owner, str(ready)] for owner in ("one", "another")]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for command in commands
    ]
    found = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in both]
    assert sorted(result["reused"] for result in found) == [False, True]
    assert (tmp_path / "done").read_text() == "once\n"


@pytest.mark.usefixtures("days")
def test_examples_that_another_run_took_over_lately_stay_and_are_made_again_when_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(run: Run) -> Result:
        (run.stage("examples").directory / "events.parquet").write_text(run.id)
        return {"rows": 1}

    first, second = make_run(), replace(make_run(owner="others"), work=tmp_path / "another-machine")
    do_stage(first, "examples", work)
    monkeypatch.setattr(retention, "EXAMPLES_KEPT", timedelta(seconds=4))

    def old() -> Any:
        return clean(first.ranker, dry_run=True)["examples"]

    wait_until(lambda: old() == [first.stage("examples").prefix], 20, "the first run's examples to be old")
    assert do_stage(second, "examples", work)["reused"] is True
    assert old() == [], "the second run reads them"
    wait_until(lambda: bool(old()), 20, "the second run to be old")
    clean(first.ranker, dry_run=False)
    with pytest.raises(DataError, match="kept no longer"):
        second.stage("examples").files()
    said = {stage["stage"]: (stage["reused"], stage["why"]) for stage in plan(second)["stages"]}
    assert said["examples"] == (False, "its files are kept no longer, for they hold what customers asked")
    assert do_stage(second, "examples", work)["reused"] is False, "they are not reused for ever"
    assert [path.name for path in second.stage("examples").files().glob("*.parquet")] == ["events.parquet"]
    assert (second.stage("examples").files() / "events.parquet").read_text() == second.id
    assert do_stage(second, "examples", work)["reused"] is True
    assert do_stage(first, "examples", work)["run"] == second.id, (
        "and the first takes over what there is again"
    )


def examples_of(days: list[str]) -> dict[str, Any]:
    return {"verdicts": dict.fromkeys(days, "x"), "left_out": [], "forgotten": ""}


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize(
    ("found_on", "again"), [([], False), ([date(2011, 8, 1)], False), ([date(2011, 8, 29)], True)]
)
def test_a_night_does_again_what_has_read_rows_of_somebody_who_was_forgotten_since(
    store: ObjectStore, found_on: list[date], again: bool
) -> None:
    run = make_run()
    do(run, "examples", **examples_of(["2011-08-29", "2011-08-30"]))
    do(run, "train")
    (run.stage("train").directory / "checkpoint").write_text("knows her")
    add_request(store, "retail", "anna", {user_digest("anna")}, found_on, looked=True)
    if again:
        with pytest.raises(DataError, match="begin the night again"):
            _require_nobody_forgotten(run)
    else:
        _require_nobody_forgotten(run)
    assert [stage.result is None for stage in planned(run)[:1]] == [again]
    left_out = list(read_forgotten(store, "retail").requests)
    made = do(run, "examples", **{**examples_of(["2011-08-29", "2011-08-30"]), "left_out": left_out})
    assert made["reused"] is not again
    assert (run.stage("train").result() is None) is again
    assert (run.stage("train").directory / "checkpoint").exists() is not again
    _require_nobody_forgotten(run)


@pytest.mark.usefixtures("days")
def test_a_night_that_has_published_keeps_its_results(store: ObjectStore) -> None:
    run = make_run()
    do(run, "examples", **examples_of(["2011-08-30"]))
    do(run, "publish", published=True)
    add_request(store, "retail", "anna", {user_digest("anna")}, [DAY], looked=True)
    assert do(run, "examples")["reused"] is True and run.stage("publish").result() is not None
