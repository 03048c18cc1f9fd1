"""The tokenizer in the graph against the Hugging Face tokenizer it is made from."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tokenizers import Tokenizer

from reshelve.errors import ConfigurationError
from reshelve.export.tokenizer import GraphTokenizer, TokenBatch, longest_first, read_tokenizer

HARD = [
    "", "   ", "hello world", "WHITE HANGING HEART T-LIGHT HOLDER", "Café crème brûlée", "日本語のテキスト",
    "👩‍👩‍👧 family 🎉", "[CLS] typed by a customer [SEP] [MASK] [PAD]", "x" * 100, "x" * 101,
    "supercalifragilisticexpialidocious " * 30, "\x00\x01\u200b\ufeffabc\x7f\x85\u2028def", "naïve façade İstanbul ß ẞ ŒUVRE",
    "한국어 문장", "ลองภาษาไทย", "हिन्दी में", "a\u0301\u0327b", "\ufffd\uffff\ufffe ok", "##ing ## # unhappiness", "don't!!! ...$5.99",
    "\U000e0001tag \U0001f3fb \U00020000 \U0010ffff", "tab\tnew\nline\rreturn\x0b\x0c", "ﬁne ½ ② Ⅷ", "＄５．９９　ＦＵＬＬ",
]  # fmt: skip


def varied(count: int, seed: int) -> list[str]:
    """Strings over all of Unicode, over busy blocks of it, and mixtures of the hard ones."""
    draw = random.Random(seed)
    blocks = (
        (32, 127),
        (97, 123),
        (97, 123),
        (0xA0, 0x600),
        (0x4E00, 0x5000),
        (0xAC00, 0xD7A4),
        (0x1F300, 0x1F700),
        (32, 33),
    )

    def anywhere() -> str:
        points = (draw.randrange(1, 0x110000) for _ in range(draw.randrange(40)))
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)

    def busy() -> str:
        return "".join(chr(draw.randrange(*draw.choice(blocks))) for _ in range(draw.randrange(90)))

    def mixed() -> str:
        return " ".join(draw.choice(HARD) for _ in range(draw.randrange(1, 4)))

    return HARD + [draw.choice((anywhere, busy, mixed))() for _ in range(count - len(HARD))]


def reference(path: Path, max_length: int) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.encode_special_tokens = True  # what a customer types is text
    return tokenizer


def tensor(texts: list[str]) -> tf.Tensor:
    return tf.constant([text.encode() for text in texts], tf.string)


class Compiled:
    """The graph tokenizer as a version has it: inside a tf.function."""

    def __init__(self, path: Path, max_length: int) -> None:
        graph = GraphTokenizer(path, max_length)
        texts = tf.TensorSpec([None], tf.string)
        self.single = tf.function(lambda t: graph.single(graph.tokens(t)), input_signature=[texts])
        self.pair = tf.function(
            lambda t, u: graph.pair(graph.tokens(t), graph.tokens(u)), input_signature=[texts, texts]
        )


@pytest.fixture(scope="module")
def compiled(tokenizer_file: Path) -> Compiled:
    return Compiled(tokenizer_file, 24)


def assert_equal(batch: TokenBatch, expected: list, texts: list) -> None:
    assert batch.ids.shape[1] == max(len(e.ids) for e in expected), "padded to the longest of the batch"
    for row, length, answer, text in zip(
        batch.ids.numpy(), batch.lengths.numpy(), expected, texts, strict=True
    ):
        assert row[:length].tolist() == answer.ids, text
        assert not row[length:].any(), text
    if batch.types is not None:
        for row, answer in zip(batch.types.numpy(), expected, strict=True):
            assert row[: len(answer.ids)].tolist() == answer.type_ids


def check(compiled: Compiled, path: Path, texts: list[str]) -> None:
    tokenizer = reference(path, 24)
    others = random.Random(1).sample(texts, len(texts))
    for start in range(0, len(texts), 250):
        some, more = texts[start : start + 250], others[start : start + 250]
        assert_equal(compiled.single(tensor(some)), tokenizer.encode_batch(some), some)
        pairs = list(zip(some, more, strict=True))
        assert_equal(compiled.pair(tensor(some), tensor(more)), tokenizer.encode_batch(pairs), pairs)


def test_equals_hugging_face_on_2000_varied_strings(compiled: Compiled, tokenizer_file: Path) -> None:
    check(compiled, tokenizer_file, varied(2000, seed=3))


@pytest.mark.slow
def test_equals_hugging_face_on_10000_varied_strings(compiled: Compiled, tokenizer_file: Path) -> None:
    check(compiled, tokenizer_file, varied(10_000, seed=4))


def test_special_tokens_typed_by_a_customer_stay_text(compiled: Compiled) -> None:
    ids = compiled.single(tensor(["[SEP] cup"])).ids.numpy()[0]
    assert list(ids).count(102) == 1, "only the closing [SEP] is one"


def test_bytes_that_are_no_utf8_are_dropped_like_the_replacement_character(compiled: Compiled) -> None:
    broken, clean = compiled.single(tf.constant([b"red \xff\xfecup", b"red cup"])).ids.numpy()
    assert (broken == clean).all()


def test_an_empty_batch_gives_no_rows(compiled: Compiled) -> None:
    assert compiled.single(tensor([])).ids.shape[0] == 0


def test_one_first_text_goes_with_every_second(compiled: Compiled) -> None:
    once = compiled.pair(tensor(["red cup"]), tensor(["cup", "a large red bag"]))
    repeated = compiled.pair(tensor(["red cup", "red cup"]), tensor(["cup", "a large red bag"]))
    assert np.array_equal(once.ids, repeated.ids) and np.array_equal(once.types, repeated.types)


def test_pair_truncation_equals_hugging_face_at_every_length(tokenizer_file: Path) -> None:
    tokenizer = reference(tokenizer_file, 12)
    sizes = [(first, second) for first in range(16) for second in range(16)]
    encodings = tokenizer.encode_batch([("cup " * first, "bag " * second) for first, second in sizes])
    expected = [(e.type_ids.count(0) - 2, e.type_ids.count(1) - 1) for e in encodings]
    left, right = longest_first(*(tf.constant(column) for column in zip(*sizes, strict=True)), 9)
    assert list(zip(left.numpy().tolist(), right.numpy().tolist(), strict=True)) == expected


def test_a_tokenizer_of_another_kind_is_refused(tokenizer_file: Path) -> None:
    form = json.loads(tokenizer_file.read_text())
    form["pre_tokenizer"] = {"type": "ByteLevel"}
    with pytest.raises(ConfigurationError, match="only BERT's tokenizer"):
        read_tokenizer(json.dumps(form))
