"""Text → the keys under which behaviour is remembered, in TensorFlow, so that a version normalises exactly as training did.

`Halo: Reach`, `halo reach` and `haloreach` are one key; `Gears of War III` and `gear of war 3` are another.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from reshelve.features.codepoints import ITSELF, LAST, CodePoints, GraphCodePoints, paged, substitute
from reshelve.features.grams import APOSTROPHES, GRAMS, LONGEST

_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
_LAST_LETTER = 0x33480  # beyond are no letters, as of Unicode 17


class Keys(NamedTuple):
    """What of each text [n] is remembered.

    `words` and `grams`: string values [m] with the row each belongs to, int32 [m]; `compact`: string [n], the words
    without what parts them.
    """

    compact: tf.Tensor
    words: tf.Tensor
    word_rows: tf.Tensor
    grams: tf.Tensor
    gram_rows: tf.Tensor


class TextKeys(tf.Module):
    """Normalises texts. `keys` works eagerly (to build the tables) and inside a graph (to read them)."""

    def __init__(self) -> None:
        super().__init__()
        self.points = GraphCodePoints.of(letters())
        self.numerals = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(_ROMAN)), tf.constant(list(_ROMAN.values()))
            ),
            "",
        )

    def words(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Normalised words [m] and the row of each, int32 [m]; `texts` string [n].

        Lower case without accents; letters and digits part; Roman numerals to IX are digits; no plural s.
        """
        plain = substitute(_short(texts), self.points)
        for pattern in (r"(\pL)(\pN)", r"(\pN)(\pL)"):
            plain = tf.strings.regex_replace(plain, pattern, r"\1 \2")
        place, words, _ = tf.raw_ops.StringSplitV2(input=plain, sep="", maxsplit=-1)
        digits = self.numerals.lookup(words)
        words = tf.where(digits == "", words, digits)
        words = tf.strings.regex_replace(words, r"^(..+[^s])s$", r"\1")
        return words, tf.cast(place[:, 0], tf.int32)

    def compact(self, texts: tf.Tensor) -> tf.Tensor:
        """`Keys.compact` alone, string [n]."""
        return _joined(*self.words(texts), texts)

    def plain(self, texts: tf.Tensor) -> tf.Tensor:
        """The words of each text with single blanks, string [n]: all that the tables keep of how it was typed."""
        return _joined(*self.words(texts), texts, separator=" ")

    def keys(self, texts: tf.Tensor) -> Keys:
        """The keys of string `texts` [n]."""
        words, rows = self.words(texts)
        compact = _joined(words, rows, texts)
        framed = tf.where(compact == "", "", tf.strings.join(["^", compact, "$"]))
        characters = tf.strings.unicode_split(framed, "UTF-8")
        grams = tf.strings.ngrams(characters, list(GRAMS), separator="")
        whole = tf.strings.join(["w:", words])
        return Keys(
            compact,
            words,
            rows,
            tf.concat([grams.flat_values, whole], 0),
            tf.concat([tf.cast(grams.value_rowids(), tf.int32), rows], 0),
        )


def _joined(words: tf.Tensor, rows: tf.Tensor, texts: tf.Tensor, separator: str = "") -> tf.Tensor:
    count = tf.size(texts)
    # A segment join would need sorted, dense segments; rows are sorted already, and an empty text has no words.
    splits = tf.concat([[0], tf.cumsum(tf.math.bincount(rows, minlength=count, maxlength=count))], 0)
    ragged = tf.RaggedTensor.from_row_splits(words, tf.cast(splits, tf.int64), validate=False)
    compact = tf.strings.reduce_join(ragged, axis=1, separator=separator)
    # What has no letter or digit is remembered as it was typed.
    return tf.where(compact == "", tf.strings.strip(_short(texts)), compact)


def _short(texts: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(texts, 0, LONGEST, unit="UTF8_CHAR")


@lru_cache(maxsize=1)
def letters() -> CodePoints:
    """Every code point as its lower-case letters and digits without accents; apostrophes vanish, all else parts words."""
    kinds: dict[tuple[int, ...], int] = {(ord(" "),): 0}
    kind_of = np.zeros(LAST, np.int32)
    for point in range(_LAST_LETTER):
        kind_of[point] = kinds.setdefault(_letters(chr(point)), len(kinds))
    return paged(kind_of, list(kinds))


def _letters(character: str) -> tuple[int, ...]:
    if character in APOSTROPHES:
        return ()
    if character.isalnum() and character.isascii():
        return (ord(character.lower()),)
    parts = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    found = tuple(ord(c) if c.isalnum() else ord(" ") for part in parts for c in part.lower())
    return (ITSELF,) if found == (ord(character),) and found != (ord(" "),) else found
