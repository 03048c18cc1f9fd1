"""A base that the packaged graph does not know is refused where the ranker file names it, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, DataError
from reshelve.export.tokenizer import GraphTokenizer
from reshelve.export.tokenizer_check import check_tokenizer
from reshelve.pipeline.references import load_ranker

FILE = """\
name: shelf
title: A shelf
kind: {kind}
data: {{source: retail}}
model:
  base: {base}
{more}
gates: {{metric: mrr}}
"""
Form = dict[str, Any]


@pytest.fixture
def read(tmp_path: Path, tokenizer_file: Path) -> Callable[..., Ranker]:
    """`read(change)`: a ranker file whose base is MiniLM, its tokenizer.json and config.json changed by `change`."""

    def load(change: Callable[[Form, Form], object], more: str = "", kind: str = "pair") -> Ranker:
        tokenizer = json.loads(tokenizer_file.read_text())
        config = json.loads((tokenizer_file.parent / "config.json").read_text())
        change(tokenizer, config)
        base = tmp_path / "base"
        base.mkdir()
        (base / "tokenizer.json").write_text(json.dumps(tokenizer))
        (base / "config.json").write_text(json.dumps(config))
        (base / "model.safetensors").touch()  # its weights are not asked for
        (tmp_path / "shelf.yaml").write_text(FILE.format(kind=kind, base=base, more=more))
        return load_ranker("shelf", directory=tmp_path)

    return load


def added(content: str, number: int = 30522, special: bool = False) -> Form:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": content, "special": special, **flags}


def renamed(tokenizer: Form, _: Form) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["<s>"] = vocabulary.pop("[CLS]")


def one_type(tokenizer: Form, _: Form) -> None:
    for piece in tokenizer["post_processor"]["pair"]:
        next(iter(piece.values()))["type_id"] = 0


UNFIT: dict[str, tuple[Callable[[Form, Form], object], str]] = {
    "Unigram": (lambda t, c: t.update(model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}), "model Unigram, expected WordPiece"),
    "another normalizer": (lambda t, c: t.update(normalizer={"type": "NFKC"}), "normalizer NFKC"),
    "no normalizer": (lambda t, c: t.update(normalizer=None), "normalizer None"),
    "other special tokens": (renamed, r"the vocabulary lacks \[CLS\]"),
    "an added word": (lambda t, c: t["added_tokens"].append(added("covid19")), "does not support: 'covid19'"),
    "many added words": (lambda t, c: t["added_tokens"].extend(added(f"<{n}>", 30522 + n) for n in range(9)), "and 6 more"),
    "a special token beside the vocabulary": (lambda t, c: t["added_tokens"].append(added("[ITEM]", special=True)), r"'\[ITEM\]'"),
    "no post-processor": (lambda t, c: t.update(post_processor=None), r"post_processor: expected \[CLS\] A \[SEP\]"),
    "RoBERTa's post-processor": (lambda t, c: t.update(post_processor={"type": "RobertaProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}), "post_processor"),
    "both texts of one type": (one_type, r"around two texts"),
    "another activation": (lambda t, c: c.update(hidden_act="gelu_new"), "hidden_act gelu_new, expected gelu"),
    "embeddings not resized": (lambda t, c: c.update(vocab_size=30000), "ids go to 30521: its embeddings were not resized"),
    "one token type": (lambda t, c: c.update(type_vocab_size=1), "type_vocab_size 1, but a pair needs two"),
    "pruned heads": (lambda t, c: c.update(pruned_heads={"0": [1]}), "pruned_heads"),
    "another encoder": (lambda t, c: c.update(model_type="xlm-roberta"), "'xlm-roberta' models are not supported"),
    "no JSON": (lambda t, c: t.update(model={"type": "WordPiece"}), "no tokenizer.json that can be read"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), UNFIT.values(), ids=UNFIT)
def test_a_base_that_cannot_be_packaged_is_refused_with_its_line(
    read: Callable[..., Ranker], change: Callable[[Form, Form], object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"shelf\.yaml:6: model\.base: .*{words}"):
        read(change)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("  layers: 7", r"shelf\.yaml:7: model\.layers: 7 is more than the base model's 6 layers"),
        ("  max_length: 512\n  layers: 6", ""),
        (
            "tuning: {space: {model.layers: {choice: [2, 7]}}}",
            r"shelf\.yaml:7: tuning\.space: .*at most .* 6",
        ),
        ("compression: {steps: [{step: distil, layers: 6}]}", r"shelf\.yaml:7: .*fewer than the model's 6"),
    ],
    ids=["layers", "all of it", "tuned layers", "distilled layers"],
)
def test_what_the_base_has_not_got_is_refused_with_its_line(
    read: Callable[..., Ranker], more: str, words: str
) -> None:
    if not words:
        assert read(lambda t, c: None, more).model.layers == 6
        return
    with pytest.raises(ConfigurationError, match=words):
        read(lambda t, c: None, more)


def test_what_a_ranker_does_not_read_need_not_fit(read: Callable[..., Ranker]) -> None:
    """Towers read their texts apart, and have no use for a second type."""
    assert read(lambda t, c: c.update(type_vocab_size=1), "  towers: true").model.towers


def test_bert_processing_is_the_same_template(read: Callable[..., Ranker]) -> None:
    same = {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
    assert read(lambda t, c: t.update(post_processor=same))


@pytest.mark.slow
def test_the_packaged_tokenizer_is_tried_on_each_branch_and_each_added_token(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    graph = GraphTokenizer(tokenizer_file, 16)
    check_tokenizer(graph, tokenizer_file, pairs=True)
    form = json.loads(tokenizer_file.read_text())
    other = tmp_path / "tokenizer.json"
    for key in ("lowercase", "clean_text", "handle_chinese_chars"):
        before = dict(form["normalizer"])
        changed = {**before, key: not before[key], **({"strip_accents": True} if key == "lowercase" else {})}
        other.write_text(json.dumps({**form, "normalizer": changed}))
        with pytest.raises(DataError, match="the packaged tokenizer reads"):
            check_tokenizer(graph, other, pairs=False)
    other.write_text(json.dumps({**form, "normalizer": {**form["normalizer"], "strip_accents": False}}))
    with pytest.raises(DataError, match="the packaged tokenizer reads"):
        check_tokenizer(graph, other, pairs=False)
    other.write_text(json.dumps({**form, "added_tokens": [*form["added_tokens"], added("covid19")]}))
    with pytest.raises(DataError, match="reads 'covid19'"):
        check_tokenizer(graph, other, pairs=False)


@pytest.mark.slow
def test_a_cased_tokenizer_is_packaged_as_it_is(tokenizer_file: Path, tmp_path: Path) -> None:
    form = json.loads(tokenizer_file.read_text())
    plain = {"lowercase": False, "clean_text": False, "handle_chinese_chars": False, "strip_accents": None}
    cased = tmp_path / "tokenizer.json"
    cased.write_text(json.dumps({**form, "normalizer": {"type": "BertNormalizer", **plain}}))
    check_tokenizer(GraphTokenizer(cased, 16), cased, pairs=True)
