"""Where a night starts: from a published champion of an older partition that fits, decided once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.deployed import judged

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Advance, Offer, Promote, move_pointer
from reshelve.deployments.release_table import Event, ReleaseState
from reshelve.errors import DataError
from reshelve.lineage.run import Run, run_stage
from reshelve.model.base import BaseModel, resolve_base
from reshelve.pipeline.publish import publish
from reshelve.store.objects import ObjectStore
from reshelve.training.initial import build_model
from reshelve.training.launch import train
from reshelve.training.model import RankerModel, log_popularity, rows_of_titles
from reshelve.training.spec import training_spec
from reshelve.training.warm_start import WarmStart, choose_start, expected_start, start_files

pytestmark = pytest.mark.slow

YESTERDAY, TODAY = date(2011, 8, 29), date(2011, 8, 30)
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(
    store: ObjectStore,
    tmp_path: Path,
    make_ranker: Callable[..., Ranker],
    write_examples: Callable[..., Path],
) -> MakeRun:
    """A run whose examples stage is done; training days end two days before its partition."""

    def make(partition: date, kind: str = "next_item", **values: object) -> Run:
        run = Run(make_ranker(kind, **values), partition, store, tmp_path / "work")
        if run.stage("examples").result() is None:
            write_examples(run.stage("examples").directory, kind)
            day = partition.day
            run.stage("examples").commit({
                "train_partitions": ["2011-08-01", f"2011-08-{day - 2:02}"],
                "validation_partitions": [f"2011-08-{day - 1:02}"],
            })  # fmt: skip
        return run

    return make


def base_of(run: Run) -> BaseModel:
    return resolve_base(run.ranker.model.base, run.store)


def expected(run: Run) -> WarmStart:
    """What a plan says of it, before it is decided."""
    [first] = run.stage("examples").required()["validation_partitions"][:1]
    before = list(run.store.list(""))
    found = expected_start(run, base_of(run), first)
    assert list(run.store.list("")) == before
    return found


def trained(run: Run) -> Run:
    """The run with a train stage: a model whose weights are all its own."""
    catalogue = pq.read_table(run.stage("examples").directory / "catalogue.parquet").to_pydict()
    items = run.ranker.kind == "next_item"
    model = RankerModel.initialise(
        base_of(run).path,
        kind=run.ranker.kind,
        pooling=run.ranker.model.pooling,
        max_length=run.ranker.model.max_length,
        titles=catalogue["title"] if items else None,
        events=catalogue["events"] if items else None,
    )
    torch.manual_seed(run.partition.day)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    model.save(run.stage("train").directory)
    run.stage("train").commit({"base": base_of(run).record()})
    return run


def released(run: Run) -> int:
    """Publish and promote what the run has trained; gives the version."""
    served = run.stage("package").directory / "version"
    served.mkdir()
    (served / "saved_model.pb").write_bytes(b"not asked for here")
    run.stage("package").commit({})
    run.stage("gate").commit(judged(run, {"verdict": "promote"}))
    version = int(publish(run)["version"])
    loaded, probed = (Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)
    way = (Offer(version), Advance(version, *loaded), Advance(version, *probed), Promote(version))
    for change in way:
        move_pointer(run.store, run.ranker.name, change, by="test", reason="")
    return version


@pytest.fixture
def champion(make_run: MakeRun) -> int:
    return released(trained(make_run(YESTERDAY)))


def test_a_night_starts_from_the_champions_weights(make_run: MakeRun, champion: int) -> None:
    run = make_run(TODAY)
    path = run.stage("examples").directory / "catalogue.parquet"
    table = pq.read_table(path).to_pydict()
    table["item_id"][3], table["title"][3] = "new", "red vintage mug"  # one goes, another comes
    table["events"] = [2 * count + place for place, count in enumerate(table["events"])]
    pq.write_table(pq.ParquetFile(path).schema_arrow.empty_table().from_pydict(table), path)

    planned = expected(run)
    start = choose_start(run, base_of(run))
    assert start.record() == planned.record() == {
        "from": "champion", "version": champion, "run": make_run(YESTERDAY).id, "reason": "the champion is compatible",
    }  # fmt: skip
    directory = start_files(run, start)
    assert directory is not None
    base = base_of(run).path
    spec = training_spec(
        run.ranker, identity=run.id, base=base, start=directory, start_version=champion,
        examples=path.parent, output=path.parent,
    )  # fmt: skip
    model, before = build_model(spec, 0), load_file(directory / "model.safetensors")
    for name, value in model.state_dict().items():
        if not name.startswith("items."):
            torch.testing.assert_close(value, before[name])
    kept = [place for place in range(17) if place != 3]
    torch.testing.assert_close(model.items.weight[kept], before["items.weight"][kept])
    fresh = rows_of_titles(model, base, ["red vintage mug"])
    torch.testing.assert_close(model.items.weight[3:4].detach(), fresh)
    # Biases: today's popularity, and what the champion had learned beyond that of its day.
    learned = before["items.bias"] - log_popularity([5] * 17)
    now = (model.items.bias - log_popularity(table["events"])).detach()
    torch.testing.assert_close(now[kept], learned[kept])
    torch.testing.assert_close(now[3], learned[kept].mean())


def test_a_pair_ranker_takes_over_its_head_too(make_run: MakeRun) -> None:
    version = released(trained(make_run(YESTERDAY, "pair")))
    run = make_run(TODAY, "pair")
    start = choose_start(run, base_of(run))
    directory = start_files(run, start)
    assert directory is not None and start.version == version
    examples = run.stage("examples").directory
    spec = training_spec(
        run.ranker,
        identity=run.id,
        base=base_of(run).path,
        start=directory,
        examples=examples,
        output=examples,
    )
    before = load_file(directory / "model.safetensors")
    for name, value in build_model(spec, 0).state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_the_start_is_decided_once(make_run: MakeRun, champion: int) -> None:
    run = make_run(TODAY)
    first = choose_start(run, base_of(run))
    newer = released(trained(make_run(YESTERDAY, **{"training.seed": 5})))
    assert newer != champion
    assert choose_start(run, base_of(run)) == first
    shutil.rmtree(run.stage("start").directory)  # as on another host
    directory = start_files(run, first)
    assert directory is not None
    assert load_file(directory / "model.safetensors")
    other = make_run(TODAY, **{"training.seed": 6})
    assert choose_start(other, base_of(other)).version == newer


def test_a_night_before_any_release_starts_from_the_base_and_stays_there(make_run: MakeRun) -> None:
    run = make_run(TODAY)
    start = choose_start(run, base_of(run))
    assert start.record()["from"] == "base" and start.reason == "there is no champion"
    assert start_files(run, start) is None
    released(trained(make_run(YESTERDAY)))
    assert choose_start(run, base_of(run)) == start


@pytest.mark.parametrize(
    ("partition", "values", "reason"),
    [
        (YESTERDAY, {"training.seed": 5}, "is not of an older partition"),
        (date(2011, 8, 28), {}, "is not of an older partition"),
        (TODAY, {"model.pooling": "cls"}, "differs in pooling"),
        (TODAY, {"model.max_length": 12}, "differs in max_length"),
        (TODAY, {"training.warm_start": False}, "training.warm_start is false"),
    ],
    ids=["same partition", "backfill", "pooling", "length", "switched off"],
)
def test_a_champion_that_does_not_fit_is_no_start(
    make_run: MakeRun, champion: int, partition: date, values: dict[str, object], reason: str
) -> None:
    run = make_run(partition, **values)
    planned = expected(run)
    start = choose_start(run, base_of(run))
    assert start.version is None and reason in start.reason
    assert planned == start


def test_another_base_is_no_start(make_run: MakeRun, champion: int, tiny_base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "note": "not the same files"}))
    run = make_run(TODAY, **{"model.base": str(other)})
    assert "has another base model" in choose_start(run, base_of(run)).reason


def test_a_champion_that_learned_from_the_measured_days_is_no_start(make_run: MakeRun, champion: int) -> None:
    run = make_run(TODAY)
    found = run.stage("examples").required()
    # As after a change of data.validation_partitions from 1 to 4: the champion trained on three of these days.
    run.stage("examples").commit({**found, "validation_partitions": ["2011-08-26", "2011-08-29"]})
    assert "was trained on days that this run is evaluated on" in expected(run).reason
    assert expected_start(run, base_of(run), None).version == champion, "days that nobody knows yet"
    assert "was trained on days that this run is evaluated on" in choose_start(run, base_of(run)).reason


def test_weights_that_are_gone_or_changed_after_the_decision_stop_the_run(
    make_run: MakeRun, champion: int
) -> None:
    run = make_run(TODAY)
    start = choose_start(run, base_of(run))
    shutil.rmtree(run.stage("start").directory)
    key = f"runs/{start.run}/train/model.safetensors"
    body = run.store.get(key)
    assert body is not None
    run.store.put(key, body.body + b" ")
    with pytest.raises(DataError, match="has changed since training started"):
        start_files(run, start)
    run.store.delete([key])
    shutil.rmtree(run.stage("start").directory)
    with pytest.raises(DataError, match="are gone"):
        start_files(run, start)
    # A run that has not decided yet is not stopped.
    other = make_run(TODAY, **{"training.seed": 6})
    assert "left no train/model.safetensors" in choose_start(other, base_of(other)).reason


@pytest.mark.slow
def test_two_nights_under_horovod_the_second_goes_on_where_the_first_ended(make_run: MakeRun) -> None:
    first = make_run(YESTERDAY, **{"training.processes": 2})
    night = run_stage(first, "train", train)
    assert night["start"]["from"] == "base"
    assert (night["processes"], night["steps"]) == (2, 20)
    assert night["loss"] < night["first_loss"]
    assert night["validation_loss"] < night["first_validation_loss"]
    assert night["rank_difference"] == 0.0, "two processes learn the same weights"
    version = released(first)
    second = make_run(TODAY)
    result = run_stage(second, "train", train)
    assert result["start"]["version"] == version
    # The days' examples are the same here, so the second night begins as good as the first ended.
    assert result["first_validation_loss"] == pytest.approx(night["validation_loss"], rel=1e-4)
    assert result["validation_loss"] < night["first_validation_loss"]
    assert not (second.work / second.id / "start").exists()
