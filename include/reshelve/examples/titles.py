"""BM25 over short texts: the lexical baseline, the source of hard negatives and of shortlists."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import bm25s
import numpy as np

from reshelve.statistics.order import first_of

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case words: `Halo 3: ODST` → halo, 3, odst."""
    return _WORD.findall(text.lower())


def trigrams(text: str) -> list[str]:
    """Letters in threes, word borders included: close for misspellings that share no word."""
    padded = f" {' '.join(words(text))} "
    return [padded[start : start + 3] for start in range(len(padded) - 2)]


class TextIndex:
    """BM25 over `texts` cut into terms by `cut` (words by default)."""

    def __init__(self, texts: Sequence[str], cut: Callable[[str], list[str]] = words) -> None:
        self._cut = cut
        self._size = len(texts)
        terms = [cut(text) for text in texts]
        self._vocabulary = {term for text in terms for term in text}
        self._index = bm25s.BM25()
        if self._vocabulary:
            self._index.index(terms, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """float[texts]: 0 where no term is shared."""
        terms = [term for term in self._cut(query) if term in self._vocabulary]
        if not terms:
            return np.zeros(self._size, dtype=np.float32)
        return np.asarray(self._index.get_scores(terms))

    def nearest(self, query: str, limit: int) -> list[int]:
        """Positions of the best texts that share a term, best first; equal scores in the order of the texts."""
        scores = self.scores(query)
        best = first_of([-scores], limit)
        return [int(position) for position in best if scores[position] > 0]
