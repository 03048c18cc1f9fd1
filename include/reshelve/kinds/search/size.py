"""How large the tables of a search version will be, counted before anything is learnt: see `features.tables`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse

from reshelve.errors import ConfigurationError
from reshelve.examples.window import stream
from reshelve.examples.workspace import Workspace
from reshelve.features.candidates import SAID_ITEMS, narrows
from reshelve.features.grams import MOST_KEYS, cut, tells
from reshelve.features.row_sums import CHUNK
from reshelve.features.title_search import TITLES_OF
from reshelve.model.graph_size import INT, GraphTables, texts_bytes

_OPERATIONS, _OF_CANDIDATES = 250_000, 600_000  # more than those of other kinds
MOST_POSTINGS = 2**31 - 1  # their places are numbered by 32 bits
_CODE_POINTS = 1_250_000  # of `features.text.letters`
_TITLE, _CHOSEN, _SAYS, _ALIKE = (
    INT * (1 + weights) for weights in (0, 4, 2, 1)
)  # a posting: place and weights
_GRAM = INT * (6 + 1 + 3)  # what is known of it, its number, and where its postings start in three tables
_KEY = INT * (2 + 4)  # its number, where its postings start, and its choices in all
_ITEM = (
    INT * (4 + 3 + 1 + 2 + 1 + 1 + 3)
)  # popularities, age and the like, prior, its title's length, the softmax's bias, the place by id, where its postings start
_OF_TITLE = INT * (3 + 1)  # what weighs it where titles are searched, and its place

# Not the holdout; `norm` is the query in one spelling.
_ASKED = """
WITH asked AS (
    SELECT norm FROM events WHERE part <> 'holdout' AND norm <> '' GROUP BY norm ORDER BY count(*) DESC, norm LIMIT $most
)
SELECT DISTINCT norm, item_id FROM events JOIN asked USING (norm) WHERE part <> 'holdout' ORDER BY norm, item_id
"""


def tables(work: Workspace) -> GraphTables:
    """What the events before the holdout and the titles make."""
    catalogue = work.catalogue
    titles = [
        "" if title == item else title for item, title in zip(catalogue.items, catalogue.titles, strict=True)
    ]
    chosen = (
        (norm, catalogue.index[item])
        for norm, item in stream(work.connection, _ASKED, {"most": MOST_KEYS})
        if item in catalogue.index
    )
    narrowed = narrows(len(catalogue.items), work.run.ranker.release.candidates)
    return of_texts(catalogue.items, catalogue.titles, titles, chosen, narrowed=narrowed)


def of_texts(
    items: Sequence[str], shown: Sequence[str], titles: Iterable[str], chosen: Iterable[tuple[str, int]],
    *, narrowed: bool,
) -> GraphTables:  # fmt: skip
    """`shown`: the titles of answers; `titles`: what is read of them; `chosen`: query and place of an item, each pair once.

    `narrowed`: whether the version answers from candidates. Raises ConfigurationError where titles are too many to number
    their n-grams.
    """
    often: Counter[str] = Counter()
    for title in titles:
        often.update(cut(title)[1])
    postings = often.total()
    # Candidates are looked for from the other side, too, and what an item's n-grams are read with is filled up.
    twice = (
        sum(min(n, TITLES_OF) for gram, n in often.items() if tells(gram, n, len(items))) if narrowed else 0
    )
    filling = CHUNK // 2 * len(items) if narrowed else 0
    if postings > MOST_POSTINGS:
        raise ConfigurationError(
            f"the titles of {len(items):,} products have {postings:,} n-grams, and a table of them may have {MOST_POSTINGS:,}",
            "expected fewer products (data.catalogue_days, data.exclude) or shorter titles",
        )
    grams = {gram: number for number, gram in enumerate(often)}
    in_titles = _grams_bytes(grams)
    of_catalogue = (
        2 * texts_bytes(items)
        + texts_bytes(shown)
        + (_ITEM + (_OF_TITLE if narrowed else 0)) * len(items)
        + _TITLE * (postings + twice + filling)
        + in_titles
    )
    remembered = _remembered(grams, len(items), chosen, narrowed) - in_titles
    operations = _OPERATIONS + (_OF_CANDIDATES if narrowed else 0)
    return GraphTables(of_catalogue, remembered, constants=_CODE_POINTS + operations)


def _remembered(grams: dict[str, int], items: int, chosen: Iterable[tuple[str, int]], narrowed: bool) -> int:
    """All n-grams, those of queries included, and the postings of queries: as many as there are if all may be remembered."""
    keys: dict[str, int] = {}
    spelled: list[Sequence[int]] = []
    pairs: list[tuple[int, int]] = []
    known: dict[str, int] = {}
    for text, item in chosen:
        if text not in known:
            key, found = cut(text)
            known[text] = keys.setdefault(key, len(keys))
            if known[text] == len(spelled):
                spelled.append([grams.setdefault(gram, len(grams)) for gram in found])
        pairs.append((known[text], item))
    total = _grams_bytes(grams) + texts_bytes(keys) + _KEY * len(keys)
    if not pairs:
        return total
    starts = np.cumsum([0, *map(len, spelled)])
    columns = np.fromiter((gram for found in spelled for gram in found), np.int32, starts[-1])
    of_keys = sparse.csr_matrix((np.ones(len(columns), np.int32), columns, starts), (len(keys), len(grams)))
    places = np.array(pairs, np.int64).T
    of_items = sparse.csr_matrix((np.ones(len(pairs), np.int32), places), (len(keys), items))
    said = np.diff((of_keys.T.tocsr() @ of_items).indptr)
    filling = CHUNK // 2 * len(np.unique(places[1])) if narrowed else 0
    says = int(said.sum() + filling + (np.minimum(said, SAID_ITEMS).sum() if narrowed else 0))
    return int(total + _ALIKE * of_keys.nnz + _CHOSEN * of_items.nnz + _SAYS * says)


def _grams_bytes(grams: dict[str, int]) -> int:
    return texts_bytes(grams) + _GRAM * len(grams)
