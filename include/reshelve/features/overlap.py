"""How a query and an item's text overlap, letter by letter and word by word, in TensorFlow: what a transformer is slow to learn.

The same code makes the features of training examples and runs inside the SavedModel. Words that are rare in titles weigh
more: idf as in the search kind's tables (log(1 + N / (n + 1)) of N titles, n of which hold the word or n-gram).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from reshelve.features.text import TextKeys
from reshelve.files import whole

_GRAMS = (2, 3, 4)
_BUCKETS = 2**40  # of a text's hash, which stands for it: two different ones meet about never
_WORDS_READ = 48  # of a text, title or query: bounds the work that one request can cause
_FEWEST = 2  # titles that hold an n-gram: what one title alone holds is as rare as what none holds
_MOST = 200_000  # words and n-grams whose idf is kept, the commonest: bounds a version's size
_BATCH = 4096
_LEAST = 1e-6


class Cut(NamedTuple):
    """Words [m] of texts [n] with the row of each and its place in its text; n-grams [g] with the word of each.

    `word_keys`, `gram_keys` and `pair_keys` are hashes, int64: of words, of their n-grams, and [m] of each word with the
    one after it, -1 where it is its text's last.
    """

    words: tf.Tensor
    rows: tf.Tensor
    places: tf.Tensor
    word_keys: tf.Tensor
    pair_keys: tf.Tensor
    gram_keys: tf.Tensor
    gram_words: tf.Tensor


class Cutter(tf.Module):
    """Texts cut into normalised words and these into n-grams, `^` and `$` being a word's ends."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextKeys()

    def cut(self, texts: tf.Tensor) -> Cut:
        """The first words of string `texts` [n]."""
        words, rows = self.text.words(texts)
        number = tf.range(tf.size(rows))
        first = tf.math.unsorted_segment_min(number, rows, tf.size(texts))
        places = number - tf.gather(first, rows)
        near = places < _WORDS_READ
        words, rows, places = (tf.boolean_mask(column, near) for column in (words, rows, places))
        letters = tf.strings.unicode_split(tf.strings.join(["^", words, "$"]), "UTF-8")
        grams = tf.strings.ngrams(letters, list(_GRAMS), separator="")
        # Neighbours; rolled, so that the last word of all meets the first and the sizes stay equal.
        two = tf.strings.join([words, tf.roll(words, -1, 0)], separator=" ")
        follows = tf.roll(places, -1, 0) > places
        return Cut(
            words, rows, places, _hash(tf.strings.join(["w:", words])), tf.where(follows, _hash(two), -1),
            _hash(grams.flat_values), tf.cast(grams.value_rowids(), tf.int32),
        )  # fmt: skip


@dataclass(frozen=True)
class Rarity:
    """idf float32 [V] by the hash of a word or n-gram, int64 [V], and of those that are not listed."""

    keys: np.ndarray
    idf: np.ndarray
    unseen: float

    @classmethod
    def of(cls, titles: list[str]) -> Rarity:
        """Counted over the distinct titles of a catalogue."""
        distinct = sorted(set(titles))
        cutter, found = Cutter(), [np.empty(0, np.int64)]
        for start in range(0, len(distinct), _BATCH):
            cut = cutter.cut(tf.constant(distinct[start : start + _BATCH]))
            rows = tf.concat([tf.gather(cut.rows, cut.gram_words), cut.rows], 0)
            cells = _cells(rows, tf.concat([cut.gram_keys, cut.word_keys], 0)).numpy()
            found.append(np.unique(cells) % _BUCKETS)  # each once per title
        keys, counts = np.unique(np.concatenate(found), return_counts=True)
        common = np.argsort(-counts, kind="stable")[:_MOST]
        kept = np.sort(common[counts[common] >= _FEWEST])
        idf = np.log1p(len(distinct) / (counts[kept] + 1.0))
        return cls(keys[kept], idf.astype(np.float32), float(np.log1p(len(distinct) / 2)))

    def write(self, path: Path) -> None:
        """As safetensors."""
        unseen = np.array([self.unseen], np.float32)
        with whole(path) as partial:
            save_file({"keys": self.keys, "idf": self.idf, "unseen": unseen}, partial)

    @classmethod
    def read(cls, path: Path) -> Rarity:
        """What `write` wrote."""
        tensors = load_file(path)
        return cls(tensors["keys"], tensors["idf"], float(tensors["unseen"][0]))


class Overlap(tf.Module):
    """`features`: queries [B] or [1] and item texts [B] → float32 [B, F], the columns of TEXT."""

    def __init__(self, rarity: Rarity) -> None:
        super().__init__()
        self.cutter = Cutter()
        # A table needs an entry; no hash is negative.
        keys, idf = np.append(rarity.keys, -1), np.append(rarity.idf, np.float32(0))
        self.idf = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(idf)), rarity.unseen
        )

    def features(self, queries: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
        """Finite for every text. A single query is compared with all texts, and cut once."""
        asked, titles = self.cutter.cut(queries), self.cutter.cut(texts)
        count, single = tf.size(texts), tf.equal(tf.size(queries), 1)
        of_query = _Lists(asked.rows, tf.size(queries))
        word, pair = of_query.of(tf.where(single, tf.zeros([count], tf.int32), tf.range(count)))
        idf = self.idf.lookup(asked.word_keys)
        gram, owner = _Lists(asked.gram_words, tf.size(asked.words)).of(word)
        gram_idf = tf.gather(self.idf.lookup(asked.gram_keys), gram)
        there = _Sorted(tf.gather(titles.rows, titles.gram_words), titles.gram_keys)
        covers, _ = there.find(tf.gather(pair, owner), tf.gather(asked.gram_keys, gram))
        number = tf.size(word)
        held, at = _Sorted(titles.rows, titles.word_keys).find(pair, tf.gather(asked.word_keys, word))
        near, _ = _Sorted(titles.rows, titles.pair_keys).find(pair, tf.gather(asked.pair_keys, word))
        words = _Words(
            pair, tf.gather(asked.words, word), tf.gather(idf, word),
            _sums(gram_idf * covers, owner, number) / tf.maximum(_sums(gram_idf, owner, number), _LEAST),
            held, tf.cast(tf.gather(tf.concat([titles.places, [0]], 0), at), tf.float32),
            near * tf.cast(tf.gather(asked.pair_keys, word) >= 0, tf.float32),
        )  # fmt: skip
        title_words = _sums(tf.ones_like(titles.rows, tf.float32), titles.rows, count)
        title_idf = _sums(self.idf.lookup(titles.word_keys), titles.rows, count)
        return _summed(words, tf.maximum(title_words, 1.0), tf.maximum(title_idf, _LEAST), count)


class _Words(NamedTuple):
    """The query words of all pairs, in order [m]: the pair, the text, and how the pair's title holds it.

    `covered` is the share of its n-grams, `held` 1 for the word itself, `place` where, `near` 1 with the word after it.
    """

    pair: tf.Tensor
    text: tf.Tensor
    idf: tf.Tensor
    covered: tf.Tensor
    held: tf.Tensor
    place: tf.Tensor
    near: tf.Tensor


def _summed(words: _Words, title_words: tf.Tensor, title_idf: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The columns of TEXT of each pair, from its words [count, F]; title_words and title_idf [count]."""
    pair, idf, covered, held = words.pair, words.idf, words.covered, words.held
    number = _sums(tf.ones_like(idf), pair, count)
    present = tf.cast(number > 0, tf.float32)
    some, total = tf.maximum(number, 1.0), tf.maximum(_sums(idf, pair, count), _LEAST)
    most = tf.maximum(tf.math.unsorted_segment_max(idf, pair, count), 0.0)
    rarest = tf.cast(tf.equal(idf, tf.gather(most, pair)), tf.float32)
    rare = tf.maximum(_sums(rarest, pair, count), 1.0)
    order = tf.range(tf.size(pair))
    first = tf.math.unsorted_segment_min(order, pair, count)
    last = tf.math.unsorted_segment_max(order, pair, count)

    def at(values: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        # A query without words has none to look at: its places are out of range, and it gets the 0 at the end.
        size = tf.size(values)
        inside = tf.logical_and(place >= 0, place < size)
        return tf.gather(tf.concat([values, [0.0]], 0), tf.where(inside, place, size))

    def least(values: tf.Tensor) -> tf.Tensor:
        return tf.where(number > 0, tf.math.unsorted_segment_min(values, pair, count), 0.0)

    is_number = tf.cast(tf.strings.regex_full_match(words.text, r"\pN+"), tf.float32)
    numbers = _sums(is_number, pair, count)
    start = tf.math.unsorted_segment_min(tf.where(held > 0, words.place, 1e6), pair, count)
    end = tf.math.unsorted_segment_max(tf.where(held > 0, words.place, -1.0), pair, count)
    letters = tf.cast(tf.strings.length(words.text, unit="UTF8_CHAR"), tf.float32)
    held_idf = _sums(held * idf, pair, count)
    columns = [
        _sums(held, pair, count) / some, held_idf / total,
        _sums(covered, pair, count) / some, _sums(covered * idf, pair, count) / total,
        least(covered), at(covered, first), at(covered, last), at(held, first), at(held, last),
        _sums(held * rarest, pair, count) / rare, _sums(covered * rarest, pair, count) / rare,
        _sums(words.near, pair, count), _sums(held * is_number, pair, count) / tf.maximum(numbers, 1.0), numbers,
        tf.minimum(start, title_words) / title_words, tf.maximum(end, -1.0) / title_words,
        held_idf, total - held_idf, held_idf / title_idf,
        number, title_words, _sums(letters, pair, count), most, present * total / some, least(idf), at(idf, last),
    ]  # fmt: skip
    return tf.stack(columns, axis=1)


class _Lists:
    """Entries grouped by owner: `owners` int32 [e] is sorted; there are `count` owners."""

    def __init__(self, owners: tf.Tensor, count: tf.Tensor) -> None:
        lengths = tf.math.bincount(owners, minlength=count, maxlength=count)
        self.lengths, self.starts = lengths, tf.cumsum(lengths, exclusive=True)

    def of(self, owners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The entries of each of `owners` [k], one after the other, and which of the k each is for, both int32."""
        lengths = tf.gather(self.lengths, owners)
        which = tf.repeat(tf.range(tf.size(owners)), lengths)
        shift = tf.gather(self.starts, owners) - tf.cumsum(lengths, exclusive=True)
        return tf.range(tf.size(which)) + tf.gather(shift, which), which


class _Sorted:
    """Keys of rows, to be found by binary search."""

    def __init__(self, rows: tf.Tensor, keys: tf.Tensor) -> None:
        cells = _cells(rows, keys)
        self.order = tf.argsort(cells, stable=True)
        # One more, greater than all: a search may end behind the last.
        self.cells = tf.concat([tf.gather(cells, self.order), [tf.int64.max]], 0)

    def find(self, rows: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """1 where the row holds the key, float32 [m], and its first place there, int32 [m]; else the number of keys."""
        wanted = _cells(rows, keys)
        place = tf.searchsorted(self.cells, wanted)
        held = tf.equal(tf.gather(self.cells, place), wanted)
        none = tf.size(self.order)
        return tf.cast(held, tf.float32), tf.where(
            held, tf.gather(tf.concat([self.order, [none]], 0), place), none
        )


def _hash(texts: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(texts, _BUCKETS)


def _cells(rows: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    return tf.cast(rows, tf.int64) * _BUCKETS + keys


def _sums(values: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(values, rows, count)
