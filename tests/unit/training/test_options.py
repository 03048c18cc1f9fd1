"""The options of a training, each against what it promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from reshelve.config.ranker import Adapter as AdapterForm
from reshelve.config.ranker import Ranker
from reshelve.kinds.pair.losses import pair_losses
from reshelve.training.adapters import TrainedAdapter, plain_weights
from reshelve.training.adversary import Adversary
from reshelve.training.averaging import Average
from reshelve.training.batches import TokenisedExamples, Units, read_examples
from reshelve.training.device import Device
from reshelve.training.losses import weighted_mean
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec, training_spec
from reshelve.training.worker import backward

CPU = Device(torch.device("cpu"), bf16=False)


@pytest.fixture
def examples(tmp_path: Path, write_examples: Callable[..., Path]) -> TokenisedExamples:
    return read_examples(write_examples(tmp_path / "examples", "pair") / "train.parquet", "pair")


@pytest.fixture
def model(tiny_base: Path) -> RankerModel:
    return RankerModel.initialise(tiny_base, kind="pair", pooling="cls", max_length=16).train()


@pytest.fixture
def spec(tmp_path: Path, tiny_base: Path, make_ranker: Callable[..., Ranker]) -> TrainingSpec:
    return training_spec(
        make_ranker("pair"), identity="x", base=tiny_base, examples=tmp_path, output=tmp_path
    )


def test_the_gradient_of_accumulated_batches_is_that_of_one_large_batch(
    spec: TrainingSpec, model: RankerModel, examples: TokenisedExamples
) -> None:
    def gradient(*parts: np.ndarray) -> torch.Tensor:
        model.zero_grad()
        for chosen in parts:
            backward(spec, model, examples.batch(chosen), CPU, 1 / len(parts), None, None)
        return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])

    rows = np.arange(24)
    torch.testing.assert_close(
        gradient(rows[:8], rows[8:16], rows[16:]), gradient(rows), rtol=1e-4, atol=1e-6
    )


def test_the_adversary_moves_each_text_by_its_share_and_for_the_worse(
    model: RankerModel, examples: TokenisedExamples
) -> None:
    batch = examples.batch(np.arange(32))
    adversary = Adversary(model, 0.3)
    embedded: list[torch.Tensor] = []
    model.encoder.embeddings.word_embeddings.register_forward_hook(
        lambda *call: embedded.append(call[2].detach())
    )

    def loss() -> torch.Tensor:
        logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        return weighted_mean(*pair_losses("pointwise", logits, batch.labels, batch.weights, batch.groups))

    clean = loss()
    clean.backward()
    with adversary.attacking(batch.attention_mask):
        attacked = loss()
    assert attacked > clean
    torch.testing.assert_close(loss(), clean)  # and it is over when it is over
    mask = batch.attention_mask.unsqueeze(-1)
    change, text = (embedded[1] - embedded[0]).flatten(1), (embedded[0] * mask).flatten(1)
    torch.testing.assert_close(change.norm(dim=1), 0.3 * text.norm(dim=1), rtol=1e-4, atol=1e-5)
    assert not ((embedded[1] - embedded[0]) * (1 - mask)).any()  # what pads is not moved


def test_the_average_forgets_the_start_and_gives_the_model_back() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = Average(model, 0.9)
    wanted = torch.zeros(1, 2)
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(step)
        decay = min(0.9, step / (step + 9))
        wanted = decay * wanted + (1 - decay) * step
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), wanted)
    assert model.weight[0, 0] == 199.0


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_an_adapter_is_merged_as_peft_merges_it(
    model: RankerModel, examples: TokenisedExamples, kind: str
) -> None:
    batch = examples.batch(np.arange(8))
    inputs = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    adapter = TrainedAdapter(model, AdapterForm(kind=kind, rank=2, alpha=8), steps=30, seed=3)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert all(".lora_" in name or name.startswith("head.") for name in trained)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                value.normal_(std=0.3)
    wanted = model(*inputs).detach()
    plain = RankerModel(model.form)
    plain.load_state_dict(plain_weights(model))
    torch.testing.assert_close(plain(*inputs).detach(), wanted, rtol=1e-4, atol=1e-5)
    model.encoder = adapter._tuner.merge_and_unload()
    merged = model.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6, msg=name)


def test_adalora_ends_with_the_rank_it_was_given(
    spec: TrainingSpec, model: RankerModel, examples: TokenisedExamples
) -> None:
    steps = 30
    adapter = TrainedAdapter(model, AdapterForm(kind="adalora", rank=4, alpha=8), steps=steps, seed=3)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-2)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        backward(spec, model, examples.batch(np.arange(step, step + 16)), CPU, 1.0, None, adapter)
        optimizer.step()
        adapter.after_step(step)
    ranks = [value for name, value in model.named_parameters() if "lora_E" in name]
    assert sum(int((value != 0).sum()) for value in ranks) == 4 * len(ranks)
    assert len({int((value != 0).sum()) for value in ranks}) > 1  # and not everywhere the same


def test_units_hold_whole_groups_and_all_examples_once(examples: TokenisedExamples) -> None:
    examples.groups = np.repeat(np.arange(12), [1, 2, 3, 40, 5, 9, 20, 30, 4, 6, 20, 20])
    units = Units.of(examples, 16, grouped=True)
    parts = [units.examples(np.array([unit])) for unit in range(len(units))]
    assert sorted(np.concatenate(parts)) == list(range(160))
    assert all(len(set(examples.groups[part])) == 1 and len(part) <= 16 for part in parts)
    small = [part for part in parts if examples.groups[part[0]] == 5]
    assert [len(part) for part in small] == [9]
    assert [units.lengths[u] for u in range(len(units))] == [examples.lengths[part].max() for part in parts]
    single = Units.of(examples, 16, grouped=False)
    assert (single.size, len(single)) == (16, 160)
    assert single.examples(np.array([3, 1])).tolist() == [3, 1]


def test_the_losses_of_groups_are_their_formulas() -> None:
    groups = torch.tensor([4, 4, 4, 9, 9, 7])
    labels = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.0, 1.0])
    logits = torch.tensor([0.3, 0.9, -0.2, 1.0, 2.0, 0.1])
    weights = torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    log = lambda value: float(torch.nn.functional.softplus(torch.tensor(value)))  # noqa: E731
    found, counted = pair_losses("pairwise", logits, labels, weights, groups)
    assert float(found[0]) == pytest.approx((log(0.6) + log(-0.5) + log(1.1)) / 3)  # 1 > 0, 1 > 0.5, 0.5 > 0
    assert counted.tolist() == [2.0, 0.0, 0.0]  # groups 4, 7, 9: equal labels tell no order
    found, counted = pair_losses("listwise", logits, labels, weights, groups)
    logs = torch.log_softmax(logits[:3], 0)
    assert float(found[0]) == pytest.approx(float(-(logs[0] * 2 / 3 + logs[2] / 3)))
    assert counted.tolist() == [2.0, 0.0, 0.0]
    assert torch.isfinite(found).all()
    found, _ = pair_losses("squared", logits, labels, weights, groups)
    assert float(found[2]) == pytest.approx((1 / (1 + np.exp(0.2)) - 0.5) ** 2)
