"""The packaged tokenizer beside the one that training used, on texts that try every branch of it.

Held-out texts are what customers typed lately; what nobody has typed yet is tried here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tokenizers import Tokenizer

from reshelve.errors import DataError
from reshelve.examples.tokens import load_tokenizer
from reshelve.export.tokenizer import GraphTokenizer

# Short, so that no length of a ranker cuts off what a text is there for.
BRANCHES = (
    "", "   ", "Red CUP", "ÀÉ ẞ İ ΑΣ", "Café brûlée", "a\u0301\u0327b é", "日本語 cup漢字cup", "한국어", "ก็ हिन्दी",
    "a\x00b\x07c", "a\u200bb\ufeffc\u00add", "tab\tnew\nline\u2028x\u00a0y\u3000z", "\ufffd\ue000\U0010fffe", "don't!!! $5.99",
    "##ing # ##", "＄５　ﬁ ½ Ⅷ", "👩‍👧 🎉", "x" * 101,
)  # fmt: skip


def probes(tokenizer: Tokenizer) -> list[str]:
    """Texts for each branch of the normalizer, and each added token alone, within a text and within a word."""
    texts = list(BRANCHES)
    for token in tokenizer.get_added_tokens_decoder().values():
        said = token.content
        texts += [said, f"red {said} cup", f"x{said}y", said.upper(), said.lower()]
    return texts


def check_tokenizer(graph: GraphTokenizer, path: Path, *, pairs: bool) -> None:
    """Raise DataError with the first text, or pair of texts, whose tokens differ from those of `tokenizer.json`."""
    tokenizer = load_tokenizer(path, graph.max_length)
    texts = probes(tokenizer)
    ids, lengths, _ = graph.single(graph.tokens(tf.constant(texts)))
    _compare(texts, ids, lengths, [found.ids for found in tokenizer.encode_batch(texts)])
    if not pairs:
        return
    others = texts[::-1]
    both = list(zip(texts, others, strict=True))
    found = tokenizer.encode_batch(both)
    ids, lengths, types = graph.pair(graph.tokens(tf.constant(texts)), graph.tokens(tf.constant(others)))
    _compare(both, ids, lengths, [one.ids for one in found])
    _compare(both, types, lengths, [one.type_ids for one in found])


def _compare(
    texts: Sequence[object], rows: tf.Tensor, lengths: tf.Tensor, expected: Sequence[list[int]]
) -> None:
    for text, row, length, wanted in zip(texts, rows.numpy(), lengths.numpy(), expected, strict=True):
        if row[:length].tolist() != wanted:
            raise DataError(
                f"the packaged tokenizer reads {text!r} otherwise than the one that training used",
                f"expected {wanted}, got {row[:length].tolist()}",
            )
