"""Titles beside queries: which are read with a batch, how their logits are corrected, and who may ask for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError
from reshelve.training.batches import Batch, read_examples
from reshelve.training.device import Device
from reshelve.training.initial import build_model
from reshelve.training.losses import losses, weighted_mean
from reshelve.training.model import RankerModel
from reshelve.training.spec import training_spec
from reshelve.training.title_head import TitleHead
from reshelve.training.title_tokens import Titles, set_vectors
from reshelve.training.titles import Alike, TitleSampler

CPU = Device(torch.device("cpu"), bf16=False)
PAD = 0


def titles_of(*rows: list[int], untitled: tuple[int, ...] = ()) -> Titles:
    titled = np.array([place not in untitled for place in range(len(rows))])
    return Titles([[2, *row, 3] for row in rows], titled, PAD)


@pytest.fixture
def examples(tmp_path: Path, write_examples: Callable[..., Path]) -> Path:
    """The last item of the catalogue has no title."""
    directory = write_examples(tmp_path / "examples", "search")
    path = directory / "catalogue.parquet"
    table = pq.read_table(path).to_pylist()
    table[-1]["title"] = table[-1]["item_id"]
    pq.write_table(pa.Table.from_pylist(table), path)
    return directory


@pytest.fixture
def model(tmp_path: Path, tiny_base: Path, make_ranker: Callable[..., Ranker], examples: Path) -> RankerModel:
    ranker = make_ranker("search", **{"model.head": "titles", "model.vector_size": 64})
    spec = training_spec(ranker, identity="tiny", base=tiny_base, examples=examples, output=tmp_path)
    return build_model(spec, 0).train()


def batch_of(examples: Path, chosen: list[int]) -> Batch:
    return read_examples(examples / "train.parquet", "search").batch(np.array(chosen))


def test_titles_are_alike_by_the_rare_tokens_that_they_share() -> None:
    titles = titles_of([5, 6, 9], [5, 6, 10], [5, 7, 10], [5, 8], [5, 6], untitled=(4,))
    alike = Alike.of(titles, np.arange(5))
    shares = np.diff(alike.sums, axis=1, prepend=0.0)
    found = [
        {int(p): float(s) for p, s in zip(*row, strict=True) if s > 0}
        for row in zip(alike.places, shares, strict=True)
    ]
    assert [set(row) for row in found] == [{1}, {0, 2}, {1}, set(), set()], (
        "5 is in all, and an untitled one is like none"
    )
    drawn = alike.drawn(np.array([0, 3, 1]), 50, np.random.default_rng(1))
    assert set(drawn[:50]) == {1} and set(drawn[50:]) == {0, 2} and len(drawn) == 100
    often = alike.expected(np.array([0.5, 0.5, 0.0, 0.0, 0.0]))
    assert often.sum() == pytest.approx(1.0) and often[1] == pytest.approx(0.5)


def test_a_step_reads_the_wanted_titles_and_some_like_them_and_the_targets_are_among_these(
    model: RankerModel, examples: Path
) -> None:
    titles = Titles.read(examples, 16, PAD)
    known = read_examples(examples / "train.parquet", "search")
    sampler = TitleSampler(titles, known.targets, 4, model)
    batch = batch_of(examples, [0, 1, 2, 3])
    torch.manual_seed(4)
    logits, asked = sampler.logits(model, batch)
    torch.manual_seed(4)
    again, _ = sampler.logits(model, batch)
    torch.testing.assert_close(logits, again)
    item = batch.labels[1]
    kept = torch.from_numpy(titles.titled)[item]
    assert len(asked.labels[0]) == int(kept.sum()) and logits.shape[1] >= len(item[kept].unique())
    set_vectors(model, titles, CPU)
    whole = model(*batch.inputs)
    correction = sampler._correction
    for (r, place), (_, wanted) in zip(
        asked.labels.T.tolist(), batch.labels[:, kept].T.tolist(), strict=True
    ):
        expected = whole[r, wanted] - model.items.bias[wanted] + correction[wanted]
        assert logits[r, place].item() == pytest.approx(expected.item(), abs=1e-3)
    values, weights = losses("search", "pointwise", logits, asked)
    weighted_mean(values, weights).backward()
    head = model.items
    assert isinstance(head, TitleHead) and head.log_scale.grad is not None


def test_the_first_numbers_of_the_vectors_are_taught_beside_them(model: RankerModel, examples: Path) -> None:
    """They are asked the same, of the same titles, and count as much."""
    cut = 16
    titles = Titles.read(examples, 16, PAD)
    known = read_examples(examples / "train.parquet", "search")
    sampler = TitleSampler(titles, known.targets, 4, model)
    batch = batch_of(examples, [0, 1, 2, 3])
    torch.manual_seed(4)
    whole, asked = sampler.logits(model, batch)
    model.form = model.form.model_copy(update={"index_size": cut})
    torch.manual_seed(4)
    both, twice = sampler.logits(model, batch)
    torch.testing.assert_close(both[:4], whole)
    assert both.shape == (8, whole.shape[1]) and twice.weights.tolist() == 2 * asked.weights.tolist()

    head = model.items
    assert isinstance(head, TitleHead)
    torch.manual_seed(4)
    read = sampler._read(
        batch.labels[1][torch.from_numpy(titles.titled)[batch.labels[1]]].numpy(),
        np.random.default_rng(int(torch.randint(2**62, ()))),
    )
    pooled = [model.pooled(batch.input_ids, batch.attention_mask), model.pooled(*titles.padded(read))]
    queries, texts = (torch.nn.functional.normalize(head.projection(each)[:, :cut]) for each in pooled)
    expected = head.scale * queries @ texts.T + sampler._correction[torch.from_numpy(read)]
    torch.testing.assert_close(both[4:], expected)

    def loss(logits: torch.Tensor, of: Batch) -> torch.Tensor:
        return weighted_mean(*losses("search", "pointwise", logits, of))

    torch.testing.assert_close(loss(both, twice), (loss(whole, asked) + loss(expected, asked)) / 2)


def test_a_query_that_led_to_an_untitled_item_alone_weighs_nothing(
    model: RankerModel, examples: Path
) -> None:
    titles = Titles.read(examples, 16, PAD)
    known = read_examples(examples / "train.parquet", "search")
    sampler = TitleSampler(titles, known.targets, 2, model)
    batch = batch_of(examples, [0, 1])
    last = len(titles) - 1
    batch = replace(batch, labels=torch.tensor([[0, 1], [last, 3]]), shares=torch.ones(2))
    logits, asked = sampler.logits(model, batch)
    assert asked.weights.tolist() == [0.0, 1.0]
    values, weights = losses("search", "pointwise", logits, asked)
    assert torch.isfinite(weighted_mean(values, weights))
    alone = replace(batch, labels=torch.tensor([[0, 1], [last, last]]))
    logits, asked = sampler.logits(model, alone)
    assert (
        asked.weights.sum() == 0
        and float(weighted_mean(*losses("search", "pointwise", logits, asked)).detach()) == 0
    )


def test_the_correction_leaves_popular_titles_no_better_for_being_in_every_batch(model: RankerModel) -> None:
    """log p - log of the chance to be read: level while an item is rare, above that once it comes several times a batch."""
    head = model.items
    assert isinstance(head, TitleHead)
    popularity = torch.tensor([0.9, 0.09, *[0.01 / 15] * 15])
    head.bias = popularity.log()
    titles = titles_of(*[[5 + n] for n in range(17)])  # nothing is like another
    correction = TitleSampler(titles, np.arange(17), 10, model)._correction
    chance = 1 - torch.exp(-10 * popularity.double())
    torch.testing.assert_close(
        correction.double(), popularity.double().log() - chance.log(), rtol=1e-5, atol=1e-5
    )
    assert correction[0] > correction[1] > correction[2]


def test_vectors_that_were_put_aside_stay_as_they_were(model: RankerModel, examples: Path) -> None:
    titles, head = Titles.read(examples, 16, PAD), model.items
    assert isinstance(head, TitleHead)
    set_vectors(model, titles, CPU)
    kept = model.state_dict()["items.vectors"]
    before = kept.clone()
    torch.testing.assert_close(kept.norm(dim=1), torch.tensor([1.0] * 16 + [0.0]))
    with torch.no_grad():
        head.projection.weight.mul_(-1)
    set_vectors(model, titles, CPU)
    torch.testing.assert_close(kept, before)
    torch.testing.assert_close(model.state_dict()["items.vectors"], -before)


def test_a_night_goes_on_from_the_champions_encoder_with_the_items_of_today(
    model: RankerModel, examples: Path, tmp_path: Path, tiny_base: Path, make_ranker: Callable[..., Ranker]
) -> None:
    head = model.items
    assert isinstance(head, TitleHead)
    with torch.no_grad():
        head.log_scale.fill_(2.5)
    model.save(tmp_path / "start")
    shutil.copyfile(examples / "catalogue.parquet", tmp_path / "start" / "catalogue.parquet")
    table = pq.read_table(examples / "catalogue.parquet").to_pylist()[:9]
    pq.write_table(pa.Table.from_pylist(table), examples / "catalogue.parquet")
    ranker = make_ranker("search", **{"model.head": "titles", "model.vector_size": 64})
    found = build_model(
        training_spec(
            ranker,
            identity="tiny",
            base=tiny_base,
            examples=examples,
            output=tmp_path,
            start=tmp_path / "start",
        ),
        0,
    ).items
    assert isinstance(found, TitleHead) and found.vectors.shape == (9, 64)
    assert found.log_scale.item() == pytest.approx(2.5)
    torch.testing.assert_close(found.projection.weight, head.projection.weight)
    torch.testing.assert_close(found.bias.exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("next_item", {}, "head"),
        ("pair", {}, "head"),
        ("search", {"training.adversarial": 0.1}, "adversarial"),
        ("search", {"compression.steps": [{"step": "distil", "layers": 1}]}, "distilled"),
        ("search", {"model.vector_size": 32}, "vector_size"),
    ],
)
def test_what_cannot_be_trained_or_packaged_with_titles_is_refused(
    make_ranker: Callable[..., Ranker], kind: str, values: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_ranker(kind, **{"model.head": "titles", **values})
    assert said in f"{refused.value.headline} {refused.value.detail}"
