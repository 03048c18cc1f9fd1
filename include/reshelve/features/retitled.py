"""The memory of a version with another catalogue: what was chosen stays with the items that stay, titles are cut anew.

What a night works out of titles (n-grams, their rarity, lengths, how alike queries are) is worked out again from all of the
new ones, by the same formulas, so that the same catalogue gives the same tables. What it works out of choices stays: there
are no new ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from reshelve.features.cut_texts import cut_texts
from reshelve.features.postings import Postings
from reshelve.features.tables import (
    HALF_LIVES,
    Array,
    SearchTables,
    alike_weights,
    of_titles,
    rarity,
)

_AGE, _NEVER, _UNTITLED = len(HALF_LIVES), len(HALF_LIVES) + 1, len(HALF_LIVES) + 2  # of SearchTables.item
_IDF, _ASKED, _WORD = 0, 4, 5  # of SearchTables.gram


def retitled(before: SearchTables, were: Array, titles: list[str]) -> SearchTables:
    """`before` for a catalogue of C items: `were` int [C] is each one's place before, -1 of a new one; `titles`: "" of an untitled one.

    A new item is one that nobody has chosen: as popular as the least popular one before.
    """
    items, new = len(were), were < 0
    places = np.full(before.popularity.size, -1, np.int64)
    places[were[~new]] = np.flatnonzero(~new)
    cut = cut_texts(titles)
    spelled = np.diff(before.alike.starts)
    grams, moved, of_title = _vocabulary(before, spelled > 0, cut.grams)
    count, keys = len(grams), len(before.keys)
    in_titles = Postings(cut.found.starts, of_title[cut.found.columns], cut.found.weights, count)
    alike = before.alike.moved(moved, np.arange(keys), count, keys)
    is_word = np.array([gram.startswith("w:") for gram in grams], bool)
    often = np.diff(alike.starts) + in_titles.column_counts()
    idf = rarity(often.astype(np.float32), keys + items)
    gram = np.zeros((count, before.gram.shape[1]), np.float32)
    gram[moved[moved >= 0]] = before.gram[moved >= 0]
    gram[:, _IDF], gram[:, _WORD] = idf, is_word
    return replace(
        before,
        grams=grams,
        chosen=before.chosen.moved(np.arange(keys), places, keys, items),
        alike=_weighed(alike, idf),
        titles=in_titles,
        says=before.says.moved(moved, places, count, items),
        gram=gram,
        item=_of_items(before.item, were, in_titles),
        title=of_titles(in_titles, idf, is_word),
        popularity=np.where(new, before.popularity.min(), before.popularity[were]).astype(np.float32),
        idf_unseen=float(np.log1p(keys + items)),
    )


def _vocabulary(before: SearchTables, spelled: Array, of_titles: list[str]) -> tuple[list[str], Array, Array]:
    """The n-grams that are still of use, sorted; where each of before is among them (-1: it is gone), and each of the titles'."""
    told = spelled | (before.gram[:, _ASKED] > 0)
    kept = {gram for gram, known in zip(before.grams, told, strict=True) if known} | set(of_titles)
    grams = sorted(kept, key=str.encode)
    place = {gram: number for number, gram in enumerate(grams)}
    moved = np.array([place.get(gram, -1) for gram in before.grams], np.int64)
    return grams, moved, np.array([place[gram] for gram in of_titles], np.int32)


def _weighed(alike: Postings, idf: Array) -> Postings:
    """What was spelled alike, weighed by what is rare now."""
    cells = (np.ones(len(alike.columns), np.float32), alike.columns, alike.starts)
    spellings = sparse.csr_matrix(cells, (len(alike.starts) - 1, alike.width)).T.tocsr()
    return Postings.of(alike_weights(spellings, idf).T.tocsr())


def _of_items(before: Array, were: Array, titles: Postings) -> Array:
    new = were < 0
    found = before[were]
    found[new, :_AGE] = before[:, :_AGE].min(axis=0)
    found[new, _AGE], found[new, _NEVER] = 0.0, 1.0  # nothing of it is older than today
    found[:, _UNTITLED] = np.diff(titles.starts) == 0
    return np.ascontiguousarray(found, np.float32)
