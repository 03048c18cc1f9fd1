"""What a Hugging Face tokenizer makes of every code point, found out by asking it.

BERT's normalizer and pre-tokenizer look at one character at a time, so a table says all they do: the
table is derived from the very tokenizer that training used, never from a reading of its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer

LAST = 0x110000
PAGE = 256
SPACE = 32
ITSELF = -1  # in `symbols`: the code point as it came
NOTHING = -2  # in `symbols`: padding
_SURROGATES = range(0xD800, 0xE000)
_MARK = "zqzqz"  # a word between two probes; only the probe's own answer could hold it, and none does
_CHUNK = 256
_PLANE = 0x10000
_UNIFORM_PLANES = (
    *range(4, 14),
    15,
    16,
)  # never assigned, or private use: one code point speaks for its plane


@dataclass(frozen=True)
class CodePoints:
    """Code point c is replaced by `symbols[cells[pages[c // 256], c % 256]]`, where a space parts words.

    pages: int32 [4352]; cells: int32 [unique pages, 256]; symbols: int32 [kinds, widest].
    """

    pages: np.ndarray
    cells: np.ndarray
    symbols: np.ndarray


def probe(tokenizer: Tokenizer) -> CodePoints:
    """Ask the tokenizer about each code point, as `a` + c + `a`."""
    kinds: dict[tuple[int, ...], int] = {(ITSELF,): 0}
    kind_of = np.zeros(LAST, np.int32)
    for plane in _UNIFORM_PLANES:
        (answer,) = _answers(tokenizer, [plane * _PLANE + 1])
        kind_of[plane * _PLANE : (plane + 1) * _PLANE] = kinds.setdefault(answer, len(kinds))
    for start in range(0, LAST, _CHUNK):
        last_of_plane = (start + _CHUNK) % _PLANE == 0  # ends in two noncharacters, which are not private
        if start // _PLANE in _UNIFORM_PLANES and not last_of_plane:
            continue
        points = [c for c in range(start, start + _CHUNK) if c not in _SURROGATES]
        for point, answer in zip(points, _answers(tokenizer, points), strict=True):
            kind_of[point] = kinds.setdefault(answer, len(kinds))
    return paged(kind_of, list(kinds))


def paged(kind_of: np.ndarray, kinds: list[tuple[int, ...]]) -> CodePoints:
    """The table of `kind_of` int32 [LAST], where kind k is replaced by the code points `kinds[k]`."""
    cells, pages = np.unique(kind_of.reshape(-1, PAGE), axis=0, return_inverse=True)
    symbols = np.full((len(kinds), max(map(len, kinds))), NOTHING, np.int32)
    for row, answer in enumerate(kinds):
        symbols[row, : len(answer)] = answer
    return CodePoints(pages.reshape(-1).astype(np.int32), cells.astype(np.int32), symbols)


class GraphCodePoints(NamedTuple):
    """CodePoints beside the functions that are being traced: a version holds them once, however many read texts."""

    pages: tf.Tensor
    cells: tf.Tensor
    symbols: tf.Tensor

    @classmethod
    def of(cls, points: CodePoints) -> GraphCodePoints:
        """The same as constants; `cells` in one row."""
        with tf.init_scope():
            return cls(
                *(tf.constant(part) for part in (points.pages, points.cells.reshape(-1), points.symbols))
            )


def substitute(texts: tf.Tensor, points: GraphCodePoints) -> tf.Tensor:
    """String `texts` [n] with every code point replaced, in the graph."""
    splits, codes = tf.raw_ops.UnicodeDecode(
        input=texts, input_encoding="UTF-8", errors="replace", Tsplits=tf.int32
    )
    page = tf.gather(points.pages, codes // PAGE)
    kind = tf.gather(points.cells, page * PAGE + codes % PAGE)
    symbols = tf.gather(points.symbols, kind)
    symbols = tf.where(symbols == ITSELF, codes[:, tf.newaxis], symbols)
    kept = symbols >= 0
    before = tf.cumsum(tf.reduce_sum(tf.cast(kept, tf.int32), 1))
    splits = tf.gather(tf.concat([[0], before], 0), splits)
    return tf.raw_ops.UnicodeEncode(
        input_values=tf.gather_nd(symbols, tf.where(kept)), input_splits=splits, output_encoding="UTF-8"
    )


def _answers(tokenizer: Tokenizer, points: list[int]) -> list[tuple[int, ...]]:
    if not points:
        return []
    text = f" {_MARK} ".join(f"a{chr(point)}a" for point in points)
    words = [
        word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    ]
    groups = " ".join(words).split(f" {_MARK} ")
    return [_answer(point, group) for point, group in zip(points, groups, strict=True)]


def _answer(point: int, group: str) -> tuple[int, ...]:
    """`a ! a` for `!` → space, itself, space."""
    middle = group.removeprefix("a").removesuffix("a")
    return tuple(ITSELF if ord(c) == point and c != " " else ord(c) for c in middle)
