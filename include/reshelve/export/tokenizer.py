"""WordPiece in the graph, equal to the Hugging Face tokenizer it is made from, with TensorFlow's own lookups only.

A word that the vocabulary holds whole costs one lookup. Only the others run the greedy longest match, all
of them together, one piece a step. Special tokens typed by a customer stay text.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tokenizers import Tokenizer

from reshelve.errors import ConfigurationError
from reshelve.features.codepoints import CodePoints, GraphCodePoints, probe, substitute
from reshelve.model.encoders.wordpiece import CLS, PAD, SEP, wordpiece_problems

_MISSING = -1
_SPECIAL_IN_PAIR = 3
# Words read, as a multiple of max_length: bounds the work a request can cause. A word is at least one token, so
# only the true lengths of a pair with both sides beyond this are unknown, and they decide who gets an odd token.
_WORDS_READ = 8


class Rows(NamedTuple):
    """Token ids of several texts: text i is `values[starts[i] : starts[i] + lengths[i]]`, all int32."""

    values: tf.Tensor
    starts: tf.Tensor
    lengths: tf.Tensor


class TokenBatch(NamedTuple):
    """Padded model inputs: ids [n, longest], lengths [n], types [n, longest] (None for single texts)."""

    ids: tf.Tensor
    lengths: tf.Tensor
    types: tf.Tensor | None


class WordPiece(NamedTuple):
    """What of a tokenizer.json the graph needs."""

    vocabulary: dict[str, int]
    points: CodePoints
    unknown: str
    prefix: str
    longest_word: int


@lru_cache(maxsize=4)
def read_tokenizer(document: str) -> WordPiece:
    """A WordPiece from the text of a `tokenizer.json`.

    Raises ConfigurationError where it is not BERT's kind (WordPiece, characters normalised one by one).
    """
    form = json.loads(document)
    problems = wordpiece_problems(form)
    if problems:
        raise ConfigurationError("tokenizer.json: only BERT's tokenizer can be packaged", "; ".join(problems))
    tokenizer = Tokenizer.from_str(document)
    return WordPiece(
        tokenizer.get_vocab(),
        probe(tokenizer),
        form["model"]["unk_token"],
        form["model"]["continuing_subword_prefix"],
        form["model"]["max_input_chars_per_word"],
    )


class GraphTokenizer(tf.Module):
    """Strings → token ids. `max_length` counts the special tokens, as Hugging Face does."""

    def __init__(self, path: Path, max_length: int) -> None:
        super().__init__()
        form = read_tokenizer(path.read_text(encoding="utf-8"))
        vocabulary = form.vocabulary
        self.max_length = max_length
        self.form = form
        self.points = GraphCodePoints.of(form.points)
        self.unknown, self.start, self.end, self.pad = (vocabulary[t] for t in (form.unknown, CLS, SEP, PAD))
        self.widest = max(map(len, vocabulary))
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(vocabulary)), tf.constant(list(vocabulary.values()), tf.int32)
            ),
            _MISSING,
        )

        texts = tf.TensorSpec([None], tf.string)
        # Traced once, so that every signature that tokenises calls the same function.
        self._tokens = tf.function(
            self._trace, input_signature=[texts], autograph=False
        ).get_concrete_function()

    def tokens(self, texts: tf.Tensor) -> Rows:
        """Tokens of string `texts` [n], without special tokens."""
        return Rows(*self._tokens(texts))

    def _trace(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        words, row = self._words(texts)
        whole = self.table.lookup(words)
        too_long = tf.strings.length(words, unit="UTF8_CHAR") > self.form.longest_word
        whole = tf.where(too_long, self.unknown, whole)
        known = whole != _MISSING

        def in_pieces() -> tuple[tf.Tensor, tf.Tensor]:
            number = tf.range(tf.size(words))
            pieces, owners = self._pieces(words, _kept(number, tf.logical_not(known)))
            values = tf.concat([_kept(whole, known), pieces], 0)
            owners = tf.concat([_kept(number, known), owners], 0)
            order = tf.argsort(owners, stable=True)
            return tf.gather(values, order), tf.gather(row, tf.gather(owners, order))

        values, rows = tf.cond(tf.reduce_all(known), lambda: (whole, row), in_pieces)
        lengths = tf.math.unsorted_segment_sum(tf.ones_like(values), rows, tf.size(texts))
        return values, tf.cumsum(lengths, exclusive=True), lengths

    def _words(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Normalised words [words] and the text each belongs to [words]."""
        text = substitute(texts, self.points)
        place, words, _ = tf.raw_ops.StringSplitV2(input=text, sep="", maxsplit=-1)
        near = place[:, 1] < _WORDS_READ * self.max_length
        return _kept(words, near), tf.cast(_kept(place[:, 0], near), tf.int32)

    def _pieces(self, words: tf.Tensor, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Greedy pieces of the words `numbers`: token ids, and the word each belongs to, in order of pieces.

        A word with a part that no piece covers becomes one unknown token.
        """
        lengths = tf.range(1, self.widest + 1)

        def step(
            shortest: tf.Tensor,
            rest: tf.Tensor,
            owner: tf.Tensor,
            ids: tf.Tensor,
            owners: tf.Tensor,
            lost: tf.Tensor,
        ) -> tuple[tf.Tensor, ...]:
            shape = [tf.size(rest), self.widest]
            heads = tf.strings.substr(
                tf.broadcast_to(rest[:, tf.newaxis], shape), tf.zeros(shape, tf.int32),
                tf.broadcast_to(lengths[tf.newaxis, :], shape), unit="UTF8_CHAR",
            )  # fmt: skip
            found = self.table.lookup(heads)
            longest = tf.reduce_max(tf.where((found != _MISSING) & (lengths >= shortest), lengths, 0), axis=1)
            longest = tf.minimum(
                longest, tf.strings.length(rest, unit="UTF8_CHAR")
            )  # a head may outrun its word
            matched = longest > 0
            lost = tf.concat([lost, _kept(owner, tf.logical_not(matched))], 0)
            rest, owner, longest, found = (_kept(t, matched) for t in (rest, owner, longest, found))
            ids = tf.concat([ids, tf.gather(found, longest - 1, batch_dims=1)], 0)
            owners = tf.concat([owners, owner], 0)
            tail = tf.strings.substr(rest, longest, tf.fill(tf.shape(longest), 1 << 20), unit="UTF8_CHAR")
            more = tail != ""
            rest = tf.strings.join([self.form.prefix, _kept(tail, more)])
            return after_prefix, rest, _kept(owner, more), ids, owners, lost

        none = tf.zeros([0], tf.int32)
        after_prefix = tf.constant(len(self.form.prefix) + 1)  # the prefix alone is no piece
        flat = tf.TensorShape([None])
        _, _, _, ids, owners, lost = tf.while_loop(
            lambda shortest, rest, *_: tf.size(rest) > 0,
            step,
            (tf.constant(1), tf.gather(words, numbers), numbers, none, none, none),
            shape_invariants=(tf.TensorShape([]), *(flat,) * 5),
            maximum_iterations=self.form.longest_word,
        )
        times = tf.math.unsorted_segment_sum(tf.ones_like(lost), lost, tf.size(words))
        whole = tf.gather(times, owners) == 0
        ids = tf.concat([_kept(ids, whole), tf.fill(tf.shape(lost), self.unknown)], 0)
        return ids, tf.concat([_kept(owners, whole), lost], 0)

    def single(self, rows: Rows) -> TokenBatch:
        """[CLS] text [SEP], cut and padded to the longest of the batch."""
        kept = tf.minimum(rows.lengths, self.max_length - 2)
        lengths = kept + 2
        place = _places(lengths)
        ids = _take(rows, place - 1)
        ids = tf.where(place == 0, self.start, tf.where(place == kept[:, tf.newaxis] + 1, self.end, ids))
        return TokenBatch(tf.where(place < lengths[:, tf.newaxis], ids, self.pad), lengths, None)

    def pair(self, first: Rows, second: Rows) -> TokenBatch:
        """[CLS] first [SEP] second [SEP]; a single `first` goes with every `second`."""
        left, right = longest_first(first.lengths, second.lengths, self.max_length - _SPECIAL_IN_PAIR)
        lengths = left + right + _SPECIAL_IN_PAIR
        place = _places(lengths)
        middle = left[:, tf.newaxis] + 1
        last = lengths[:, tf.newaxis] - 1
        ids = tf.where(place <= middle, _take(first, place - 1), _take(second, place - middle - 1))
        ids = tf.where(place == 0, self.start, tf.where((place == middle) | (place == last), self.end, ids))
        inside = place <= last
        types = tf.cast((place > middle) & inside, tf.int32)
        return TokenBatch(tf.where(inside, ids, self.pad), lengths, types)


def longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Tokens kept of each side of a pair, as Hugging Face's `longest_first` has it.

    The shorter side stays whole while it takes no more than half of the room.
    """
    shorter, longer = tf.minimum(first, second), tf.maximum(first, second)
    longer = tf.where(shorter > room, shorter, tf.maximum(shorter, room - shorter))
    both_cut = shorter + longer > room
    shorter = tf.where(both_cut, room // 2, shorter)
    longer = tf.where(both_cut, room // 2 + room % 2, longer)
    fits = first + second <= room
    swapped = first > second
    left = tf.where(fits, first, tf.where(swapped, longer, shorter))
    right = tf.where(fits, second, tf.where(swapped, shorter, longer))
    return left, right


def _kept(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """What of `values` [n, …] the `mask` [n] keeps, in fewer operations than tf.boolean_mask, which asks for shapes."""
    return tf.gather(values, tf.where(mask)[:, 0])


def _places(lengths: tf.Tensor) -> tf.Tensor:
    """0, 1, … up to the longest row (one column where there is no row): [1, columns]."""
    return tf.range(tf.maximum(tf.reduce_max(lengths), 1))[tf.newaxis, :]


def _take(rows: Rows, place: tf.Tensor) -> tf.Tensor:
    """Token number `place` of each row, anything where the row has none: [rows, columns]."""
    values = tf.cond(tf.size(rows.values) > 0, lambda: rows.values, lambda: tf.zeros([1], tf.int32))
    index = tf.clip_by_value(rows.starts[:, tf.newaxis] + place, 0, tf.size(values) - 1)
    return tf.gather(values, index)
