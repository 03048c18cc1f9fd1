"""Another encoder is one class and one line of the registry: this file adds one, and packages a ranker on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from reshelve.errors import ConfigurationError, DataError, MisfitError
from reshelve.export.heldout import read_questions
from reshelve.export.layers import FloatLayers
from reshelve.export.package import check_against_torch, torch_logits
from reshelve.export.version import VersionBuilder
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.model.description import Architecture, ModelForm, read_form, write_form
from reshelve.model.encoders.bert import Bert
from reshelve.model.encoders.registry import ENCODERS
from reshelve.model.fitting import check_base
from reshelve.model.ranker_form import ranker_form
from reshelve.model.trained import TrainedModel
from reshelve.pipeline.references import load_ranker
from reshelve.training.model import RankerModel


class Toy(Bert):
    """BERT as RoBERTa has it: positions begin behind the token that pads, and no token says which text it is of."""

    name = "toy"
    said = "toys (model_type toy)"
    token_types = False

    def first_position(self, shape: Architecture) -> int:
        return self.pad_id(shape) + 1


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, Toy.name, Toy())


def made_of(run: Run, encoder: str, pad_id: int) -> Run:
    """The run's trained model, called another encoder's."""
    directory = run.stage("train").directory
    form = read_form(directory)
    shape = form.architecture.model_copy(update={"pad_token_id": pad_id})
    write_form(directory, form.model_copy(update={"encoder": encoder, "architecture": shape}))
    return run


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_ranker_on_another_encoder_answers_as_torch_does(
    toys: None, trained_run: Callable[..., Run], pooling: str
) -> None:
    run = made_of(trained_run("pair", pooling), "toy", pad_id=1)
    builder = VersionBuilder(run)
    model = TrainedModel.load(builder.train)
    module = builder.module(model, FloatLayers(model))
    asked = kind_of("pair").requests.of_questions(read_questions(builder.examples, builder.catalogue, 8), 8)
    assert check_against_torch(module, builder.train, builder.catalogue, asked) <= 1e-4
    as_toy = torch_logits(builder.train, builder.catalogue, asked)
    made_of(run, "bert", pad_id=0)
    as_bert = torch_logits(builder.train, builder.catalogue, asked)
    assert np.abs(as_toy - as_bert).max() > 1e-2, "the same weights read from other positions, without types"


def test_training_starts_from_another_encoders_base(toys: None, tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    config = json.loads((tiny_base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "toy", "pad_token_id": 1}))
    (base / "tokenizer.json").write_bytes((tiny_base / "tokenizer.json").read_bytes())
    tensors = load_file(tiny_base / "model.safetensors")
    save_file({f"bert.{name}": tensor for name, tensor in tensors.items()}, base / "model.safetensors")
    model = RankerModel.initialise(base, kind="pair", pooling="cls", max_length=16)
    model.save(tmp_path)
    form = read_form(tmp_path)
    assert (form.encoder, form.architecture.pad_token_id) == ("toy", 1)
    assert model.pad_id == 1 and model.encoder.words.padding_idx == 1
    assert "head_width" not in (tmp_path / "model.json").read_text()
    longest = form.architecture.max_position_embeddings
    with pytest.raises(
        MisfitError, match=rf"{longest} is more than the base model's {longest - 2} positions"
    ):
        ranker_form(base, kind="pair", pooling="cls", max_length=longest)


def test_what_cannot_be_packaged_is_asked_of_the_encoder(
    toys: None, tokenizer_file: Path, tmp_path: Path
) -> None:
    config = json.loads((tokenizer_file.parent / "config.json").read_text())
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    ranker = load_ranker("search", {"kind": "pair", "gates.metric": "recall@5"})
    changed = {**config, "model_type": "toy", "type_vocab_size": 1}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    check_base(ranker, tmp_path, two_texts=True)  # which has no use for a second type
    (tmp_path / "config.json").write_text(json.dumps({**changed, "hidden_act": "relu"}))
    with pytest.raises(ConfigurationError, match="hidden_act relu, expected gelu"):
        check_base(ranker, tmp_path, two_texts=True)
    (tmp_path / "config.json").write_text(json.dumps({**changed, "model_type": "toys"}))
    with pytest.raises(ConfigurationError, match="'toys' models are not supported") as caught:
        check_base(ranker, tmp_path, two_texts=True)
    assert "model_type toy" in caught.value.detail


def test_a_model_of_an_encoder_that_is_gone_is_refused(trained_run: Callable[..., Run]) -> None:
    directory = made_of(trained_run("pair", "cls"), "toy", pad_id=1).stage("train").directory
    for load in (TrainedModel.load, RankerModel.load):
        with pytest.raises(DataError, match="encoder 'toy' is not known"):
            load(directory)


def test_there_is_one_description_for_training_and_export(trained_run: Callable[..., Run]) -> None:
    """Training took any activation, and packaging then refused all but one."""
    directory = trained_run("pair", "cls").stage("train").directory
    assert type(TrainedModel.load(directory).document) is type(RankerModel.load(directory).form) is ModelForm
    form = read_form(directory)
    shape = form.architecture.model_copy(update={"hidden_act": "relu"})
    write_form(directory, form.model_copy(update={"architecture": shape}))
    for load in (TrainedModel.load, RankerModel.load):
        with pytest.raises(DataError, match="hidden_act relu, expected gelu"):
            load(directory)
