"""The training loop in this process: it learns, stops, resumes exactly, and refuses what it cannot use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, DataError
from reshelve.training import spec as names
from reshelve.training import worker
from reshelve.training.initial import build_model
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec, training_spec
from reshelve.training.title_head import TitleHead
from reshelve.training.title_tokens import Titles

pytestmark = pytest.mark.slow

MakeJob = Callable[..., TrainingSpec]


class StoppedError(Exception):
    """What a test raises in place of a power cut."""


@pytest.fixture(scope="module", autouse=True)
def horovod_of_one() -> Iterator[None]:
    """Horovod without a launcher: one process, the same code."""
    import horovod.torch as hvd

    torch.set_num_threads(1)
    hvd.init()
    yield
    hvd.shutdown()


@pytest.fixture
def job(
    tmp_path: Path, tiny_base: Path, make_ranker: Callable[..., Ranker], write_examples: Callable[..., Path]
) -> MakeJob:
    """A training job over tiny examples, in a directory of its own."""

    def make(name: str, kind: str = "next_item", save: bool = True, **values: object) -> TrainingSpec:
        examples = tmp_path / f"examples-{kind}"
        if not examples.is_dir():
            write_examples(examples, kind)
        output = tmp_path / name
        output.mkdir(exist_ok=True)
        ranker = make_ranker(kind, **values)
        return training_spec(
            ranker, identity="tiny", base=tiny_base, examples=examples, output=output, save=save
        )

    return make


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-6, msg=name)


def result_of(spec: TrainingSpec) -> dict[str, object]:
    return dict(json.loads((spec.output / names.RESULT).read_text()))


def stop_after(monkeypatch: pytest.MonkeyPatch, checkpoints: int) -> None:
    """Let the job write that many real checkpoints, then end it where it stands."""
    save, written = worker.save_checkpoint, []

    def save_then_stop(*arguments: object) -> None:
        save(*arguments)
        written.append(1)
        if len(written) == checkpoints:
            raise StoppedError

    monkeypatch.setattr(worker, "save_checkpoint", save_then_stop)


@pytest.mark.parametrize("kind", ["next_item", "pair"], ids=str)
def test_a_job_learns_and_writes_what_the_contract_names(job: MakeJob, kind: str) -> None:
    spec = job("night", kind)
    worker.train(spec)
    result = result_of(spec)
    assert result["steps"] == result["steps_planned"] == 40
    assert result["validation_loss"] < result["first_validation_loss"]
    assert result["device"].startswith(("cpu (1 threads", "cuda"))
    points = json.loads((spec.output / "curve.json").read_text())
    assert points[0]["step"] == 0
    assert points[-1]["validation_loss"] == pytest.approx(result["validation_loss"], abs=1e-5)
    progress = json.loads((spec.output / names.PROGRESS).read_text())
    assert (progress["step"], progress["steps"], progress["seconds_left"]) == (40, 40, 0)
    events = [
        event
        for path in (spec.output / "tensorboard").iterdir()
        for event in EventFileLoader(str(path)).Load()
    ]
    assert {value.tag for event in events for value in event.summary.value} >= {
        "train/loss",
        "train/validation_loss",
    }
    model = RankerModel.load(spec.output)
    logits = model(torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long))
    assert logits.shape == ((1, 17) if kind == "next_item" else (1,))
    assert not (spec.output / names.CHECKPOINT).exists()


TITLES = {"model.head": "titles"}


def test_titles_are_saved_with_the_vectors_that_the_saved_encoder_gives_them(job: MakeJob) -> None:
    spec = job("night", "search", **TITLES)
    worker.train(spec)
    result = result_of(spec)
    assert result["validation_loss"] < result["first_validation_loss"]
    model = RankerModel.load(spec.output)
    head = model.items
    assert isinstance(head, TitleHead)
    titles = Titles.read(spec.examples, 16, model.pad_id)
    ids, mask = titles.padded(np.arange(len(titles)))
    with torch.no_grad():
        torch.testing.assert_close(head.vectors, head.vector(model.pooled(ids, mask)), rtol=0, atol=0.02)


def test_an_average_that_is_no_better_leaves_the_vectors_of_the_weights_that_are_kept(job: MakeJob) -> None:
    """The average is validated last, with vectors of its own."""
    spec = job("night", "search", **TITLES, **{"training.average": "ema", "training.average_decay": 0.999})
    worker.train(spec)
    plain = job("plain", "search", **TITLES)
    worker.train(plain)
    assert result_of(spec)["kept"]["weights"] == "last"
    assert_same_weights(spec.output, plain.output)


@pytest.mark.parametrize("kind", ["next_item", "pair", "search"], ids=str)
def test_stopping_and_resuming_gives_the_weights_of_not_stopping(
    job: MakeJob, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"training.checkpoint_seconds": 1e-9, **(TITLES if kind == "search" else {})}
    whole, stopped = job("whole", kind, **values), job("stopped", kind, **values)
    worker.train(whole)
    for checkpoints in (13, 9):  # in the first epoch, then in the second
        with monkeypatch.context() as context, pytest.raises(StoppedError):
            stop_after(context, checkpoints)
            worker.train(stopped)
    worker.train(stopped)
    assert_same_weights(whole.output, stopped.output)
    one, other = result_of(whole), result_of(stopped)
    assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-5)
    assert (one["steps"], one["examples"], one["first_validation_loss"]) == (
        other["steps"],
        other["examples"],
        other["first_validation_loss"],
    )


# Every option that has a state of its own, or takes part in the order of things.
OPTIONS = {
    "patience": {"training.patience": 3, "training.validations": 12},
    "average": {"training.average": "ema", "training.average_decay": 0.9},
    "accumulate": {"training.accumulate": 3},
    "adversarial": {"training.adversarial": 0.2},
    "squared": {"training.loss": "squared"},
    "pairwise": {"training.loss": "pairwise"},
    "listwise": {"training.loss": "listwise"},
    "lora": {"training.adapter.kind": "lora", "training.adapter.rank": 2},
    "adalora": {"training.adapter.kind": "adalora", "training.adapter.rank": 2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_learns_and_resumes_exactly(
    job: MakeJob, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**OPTIONS[option], "training.checkpoint_seconds": 1e-9}
    whole, stopped = job("whole", "pair", **values), job("stopped", "pair", **values)
    worker.train(whole)
    for checkpoints in (4, 5):
        with monkeypatch.context() as context, pytest.raises(StoppedError):
            stop_after(context, checkpoints)
            worker.train(stopped)
    worker.train(stopped)
    assert_same_weights(whole.output, stopped.output)
    one, other = result_of(whole), result_of(stopped)
    for key in ("steps", "examples", "kept", "stopped_by"):
        assert one[key] == other[key]
    assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-5)
    assert one["validation_loss"] < one["first_validation_loss"]
    # Nothing after training knows of options: the files hold a plain model that answers as it was validated.
    plain = RankerModel.load(whole.output)
    assert set(load_file(whole.output / "model.safetensors")) == set(plain.state_dict())


def test_patience_ends_a_job_that_gets_no_better_and_keeps_its_best_weights(job: MakeJob) -> None:
    patient = {"training.patience": 2, "training.validations": 19, "training.epochs": 4}
    wild = {"training.learning_rate": 0.3, "training.head_learning_rate": 0.3, "training.warmup_share": 0.0}
    spec = job("wild", **patient, **wild)
    worker.train(spec)
    result = result_of(spec)
    assert result["stopped_by"] == "patience" and result["steps"] < result["steps_planned"]
    points = json.loads((spec.output / "curve.json").read_text())
    seen = {point["step"]: point["validation_recall@20"] for point in points if "validation_loss" in point}
    assert result["kept"]["weights"] == "best"
    assert result["validation_metric"]["value"] == pytest.approx(max(seen.values()), abs=1e-5)
    assert seen[result["kept"]["step"]] == max(seen.values())
    if result["kept"]["step"] == 0:  # the weights are those of step 0, too
        untrained = build_model(spec, 0).state_dict()
        saved = load_file(spec.output / "model.safetensors")
        torch.testing.assert_close(saved["items.weight"], untrained["items.weight"])


@pytest.mark.parametrize("kind", ["next_item", "pair"], ids=str)
def test_the_metric_that_chooses_says_how_far_it_can_be_believed(job: MakeJob, kind: str) -> None:
    spec = job("night", kind)
    worker.train(spec)
    metric = result_of(spec)["validation_metric"]
    assert metric["lists"] == (40 if kind == "next_item" else 7), "one of eight holds only what is wanted"
    assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
    point = json.loads((spec.output / "curve.json").read_text())[-1]
    assert point[f"validation_{metric['name']}_low"] == pytest.approx(metric["low"], abs=1e-5)


def in_lists_of_one(examples: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        path = examples / f"{part}.parquet"
        table = pq.read_table(path)
        place = table.column_names.index("group")
        pq.write_table(table.set_column(place, "group", pa.array(range(len(table)))), path)


def test_where_no_list_orders_anything_the_loss_chooses_and_there_is_no_metric(job: MakeJob) -> None:
    spec = job("single", "pair", **{"training.patience": 3, "training.validations": 3})
    in_lists_of_one(spec.examples, ("validation",))
    worker.train(spec)
    result = result_of(spec)
    assert (result["validation_metric"]["value"], result["validation_metric"]["lists"]) == (None, 0)
    assert result["validation_loss"] < result["first_validation_loss"]
    assert "NaN" not in (spec.output / names.RESULT).read_text()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_loss_within_lists_needs_lists(job: MakeJob, part: str) -> None:
    spec = job("single", "pair", **{"training.loss": "listwise"})
    in_lists_of_one(spec.examples, (part,))
    with pytest.raises(DataError, match=rf"{part}\.parquet: no list has two different labels"):
        worker.train(spec)


def test_the_average_is_kept_where_it_validates_better(job: MakeJob) -> None:
    # A rate that is far too high leaves the last weights anywhere; their average still answers.
    noisy = {"training.learning_rate": 0.02, "training.head_learning_rate": 0.1, "training.epochs": 3}
    with_average = job("with", "pair", **noisy, **{"training.average": "ema"})
    without = job("without", "pair", **noisy)
    worker.train(with_average)
    worker.train(without)
    one, other = result_of(with_average), result_of(without)
    order = lambda result: (result["validation_metric"]["value"], -result["validation_loss"])  # noqa: E731
    assert one["kept"]["weights"] in ("average", "last")
    assert order(one) >= order(other)
    if one["kept"]["weights"] == "last":
        assert_same_weights(with_average.output, without.output)


def test_tokens_that_no_example_holds_keep_their_pretrained_rows(job: MakeJob) -> None:
    spec = job("night")
    worker.train(spec)
    saved = load_file(spec.output / "model.safetensors")["encoder.embeddings.word_embeddings.weight"]
    base = load_file(spec.base / "model.safetensors")["embeddings.word_embeddings.weight"]
    used = set(
        pq.read_table(spec.examples / "train.parquet")["input_ids"].combine_chunks().values.to_pylist()
    )
    used |= set(
        pq.read_table(spec.examples / "validation.parquet")["input_ids"].combine_chunks().values.to_pylist()
    )
    unused = sorted(set(range(len(base))) - used)
    assert unused and used
    torch.testing.assert_close(saved[unused], base[unused], rtol=0, atol=0)
    assert all(not torch.equal(saved[token], base[token]) for token in used)


@pytest.mark.parametrize("damage", ["torn", "of another spec"])
def test_a_checkpoint_that_does_not_fit_is_ignored(
    job: MakeJob, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job("whole", **{"training.checkpoint_seconds": 1e-9})
    stopped = job(
        "stopped", **{"training.checkpoint_seconds": 1e-9, "training.seed": 5 if damage != "torn" else 17}
    )
    worker.train(whole)
    with monkeypatch.context() as context, pytest.raises(StoppedError):
        stop_after(context, 7)
        worker.train(stopped)
    checkpoint = stopped.output / names.CHECKPOINT
    if damage == "torn":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    again = job("stopped")
    worker.train(again)
    assert_same_weights(whole.output, again.output)


def test_the_time_limit_stops_with_what_there_is_and_leaves_the_rates_alone(job: MakeJob) -> None:
    spec = job("short", **{"training.max_minutes": 1e-9})
    worker.train(spec)
    result = result_of(spec)
    assert (result["steps"], result["steps_planned"]) == (1, 40)
    RankerModel.load(spec.output)


def test_a_diverged_job_says_which_value_to_lower(job: MakeJob) -> None:
    spec = job(
        "wild",
        **{"training.learning_rate": 1.0, "training.head_learning_rate": 1.0, "training.weight_decay": 1.0},
    )
    broken = spec.training.model_copy(update={"learning_rate": float("inf")})
    with pytest.raises(ConfigurationError, match=r"diverged"):
        worker.train(spec.model_copy(update={"training": broken}))
    assert not (spec.output / "model.json").exists()


def test_no_examples_is_a_matter_of_the_data(job: MakeJob) -> None:
    spec = job("empty")
    path = spec.examples / "train.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match=r"train\.parquet: there are no examples"):
        worker.train(spec)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "peak": 2.0}])
    seen = []
    for step in range(10):
        worker.rates(optimizer, step, 10, 0.2)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen[:3] == [1.0, 2.0, 2.0]
    assert seen[-1] == pytest.approx(2.0 / 8)
    assert seen[2:] == sorted(seen[2:], reverse=True)
