"""What a shop remembers of its searches at one instant: counts, n-grams and titles, as tables to look up.

Everything is computed from events strictly before `as_of`; nothing here can know a later day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file
from scipy import sparse

from reshelve.clickstream.remember import NEVER, remembered_from
from reshelve.config.remember import Remember
from reshelve.features.cut_texts import cut_texts
from reshelve.features.grams import MOST_KEYS
from reshelve.features.postings import Postings

Array = np.ndarray

# Half-lives in days. What was asked yesterday and what has always been asked both say something; the blend weighs them.
HALF_LIVES = (np.inf, 1.0, 4.0, 16.0)
PRIOR_AGE = 2  # of HALF_LIVES: what is popular now
_SMOOTHING = 20.0  # events that the long-run popularity counts for in a recent one
GRAM_HALF_LIFE = 16.0
GRAM_PRIOR = 5.0  # events of popularity in what an n-gram says about items
_BM25_B = 0.75  # length normalisation; k1 does not matter where a word is in a title once or not at all


@dataclass(frozen=True)
class AskedTexts:
    """Who asked which text on which day, int32 [M] each: enough of it to tell from when on a text, or any n-gram of several,
    may be remembered. Days are `date.toordinal()`."""

    texts: Array
    customers: Array
    days: Array


@dataclass(frozen=True)
class Searches:
    """Label events with a query, one row for each text, item and day: int32 [N], and float64 [N], their label weights' sum.

    `texts` are sorted, and each is asked in some row. Days are `date.toordinal()`. What is known of an item without its query has
    the text "": it counts for popularity alone.
    """

    texts: list[str]
    text: Array
    items: Array
    days: Array
    weights: Array
    asked: AskedTexts


@dataclass(frozen=True)
class SearchTables:
    """The memory of one instant.

    keys [K] and grams [V] are strings. `chosen`: key → items, one weight per half-life. `alike`: gram → keys, cosine
    weights. `titles`: item → grams, without weights: those of a posting are a number of its gram times one of its item.
    `says`: gram → items (log lift, share of the mixture). Per gram [V, 6]: idf, log constant, mixture weight, its popularity
    part, 1 where it was asked, 1 where it is a word.
    Per item [C, H + 3]: log popularity per half-life, log age in days, 1 if never chosen, 1 if untitled.
    Per title [C, 2]: 1 / its length in idf, and what BM25 makes of its number of words.
    """

    keys: list[str]
    grams: list[str]
    chosen: Postings
    alike: Postings
    titles: Postings
    says: Postings
    gram: Array
    item: Array
    title: Array
    popularity: Array  # float32 [C]: the prior that counts are smoothed towards
    idf_unseen: float

    def write(self, directory: Path) -> None:
        """`memory.safetensors` and, last, `memory.parquet` with the strings."""
        tensors = {"gram": self.gram, "item": self.item, "title": self.title, "popularity": self.popularity}
        tensors["idf_unseen"] = np.array([self.idf_unseen], np.float32)
        for name in ("chosen", "alike", "titles", "says"):
            tensors |= getattr(self, name).tensors(name)
        save_file(
            {name: np.ascontiguousarray(t) for name, t in tensors.items()}, directory / "memory.safetensors"
        )
        kinds = ["key"] * len(self.keys) + ["gram"] * len(self.grams)
        pq.write_table(
            pa.table({"kind": kinds, "text": [*self.keys, *self.grams]}), directory / "memory.parquet"
        )

    @classmethod
    def read(cls, directory: Path) -> SearchTables:
        """What `write` wrote."""
        tensors = load_file(directory / "memory.safetensors")
        strings = pq.read_table(directory / "memory.parquet").to_pydict()
        texts = {
            kind: [t for k, t in zip(*strings.values(), strict=True) if k == kind] for kind in ("key", "gram")
        }
        tables = {name: Postings.read(name, tensors) for name in ("chosen", "alike", "titles", "says")}
        return cls(
            texts["key"], texts["gram"], **tables,
            gram=tensors["gram"], item=tensors["item"], title=tensors["title"], popularity=tensors["popularity"],
            idf_unseen=float(tensors["idf_unseen"][0]),
        )  # fmt: skip


class Corpus:
    """All searches of a window cut into keys once; `tables` then remembers of any instant of it what `rule` lets it."""

    def __init__(self, searches: Searches, titles: list[str], rule: Remember) -> None:
        texts = searches.texts
        # Titles are cut like queries; one without words (an untitled item) has no n-grams.
        found = cut_texts([*texts, *titles])
        self.searches = searches
        self.grams = found.grams
        self.is_word = np.array([gram.startswith("w:") for gram in found.grams], bool)
        self.titles = found.found.slice(len(texts), len(texts) + len(titles))
        self._in_titles = self.titles.column_counts()
        self.keys = sorted(set(found.compact[: len(texts)]))
        key_place = {key: number for number, key in enumerate(self.keys)}
        self.key_of_text = np.array([key_place[key] for key in found.compact[: len(texts)]], np.int64)
        self.texts = found.found.slice(0, len(texts)).matrix()
        asked = searches.asked
        self._keys_from = remembered_from(
            self.key_of_text[asked.texts], asked.customers, asked.days, rule, len(self.keys)
        )
        self._keys_from[[key == "" for key in self.keys]] = NEVER
        self._grams_from = grams_remembered_from(self.texts, asked, rule)

    @property
    def items(self) -> int:
        """Catalogue size C."""
        return len(self.titles.starts) - 1

    def tables(self, as_of: date) -> SearchTables:
        """What was known at the first instant of `as_of`."""
        past = self.searches.days < as_of.toordinal()
        age = (as_of.toordinal() - 1 - self.searches.days[past]).astype(np.float64)
        items, texts, weights = (
            self.searches.items[past],
            self.searches.text[past],
            self.searches.weights[past],
        )
        keys = self.key_of_text[texts]
        decayed = [weights * 2.0 ** (-age / half_life) for half_life in HALF_LIVES]
        known_keys, known_grams = (found < as_of.toordinal() for found in (self._keys_from, self._grams_from))
        asked = np.bincount(keys, decayed[0], len(self.keys))
        counted = np.sort(np.argsort(-asked, kind="stable")[: min(MOST_KEYS, np.count_nonzero(asked))])
        kept = counted[known_keys[counted]]
        shape = (len(self.keys), self.items)
        chosen = [sparse.csr_matrix((w, (keys, items)), shape)[kept] for w in decayed]
        popularity = _popularity([np.bincount(items, w, self.items) for w in decayed])
        # What an n-gram says of items it says of every search that has it: those of rare queries too, where the n-gram
        # itself is not rare. A title's n-grams are the shop's, whoever asks.
        spelled = self._spellings(np.unique(texts))[counted]
        used = np.flatnonzero(np.asarray(spelled.sum(0)).ravel() * known_grams + (self._in_titles > 0))
        spelled, titles, is_word = spelled[:, used], self.titles.renumbered(used), self.is_word[used]
        known_grams = known_grams[used]
        spellings = spelled[known_keys[counted]]
        counts = np.asarray(spellings.sum(0)).ravel() + self._in_titles[used].astype(np.float32)
        documents = len(kept) + self.items
        idf = rarity(counts, documents)
        recent = sparse.csr_matrix((weights * 2.0 ** (-age / GRAM_HALF_LIFE), (keys, items)), shape)[counted]
        prior = popularity[:, PRIOR_AGE]
        said = sparse.csr_matrix(spelled.T.tocsr() @ recent).multiply(known_grams[:, None]).tocsr()
        said.eliminate_zeros()  # nor which items a rare n-gram's searches chose
        says, telling = _says(said, prior)
        first = np.full(self.items, as_of.toordinal(), np.float64)
        np.minimum.at(first, items, self.searches.days[past])
        never = np.bincount(items, minlength=self.items) == 0
        untitled = np.diff(titles.starts) == 0
        about = [
            np.log(popularity),
            np.log1p(as_of.toordinal() - first)[:, None],
            never[:, None],
            untitled[:, None],
        ]
        return SearchTables(
            keys=[self.keys[place] for place in kept],
            grams=[self.grams[place] for place in used],
            chosen=Postings.of(*chosen),
            alike=Postings.of(alike_weights(spellings, idf).T.tocsr()),
            titles=titles,
            says=says,
            gram=np.concatenate([idf[:, None], telling, is_word[:, None]], axis=1).astype(np.float32),
            item=np.concatenate(about, axis=1).astype(np.float32),
            title=of_titles(titles, idf, is_word),
            popularity=prior.astype(np.float32),
            idf_unseen=float(np.log1p(documents)),
        )

    def _spellings(self, texts: Array) -> sparse.csr_matrix:
        """1 where a key was spelled with the n-gram in one of these texts: [keys, grams]."""
        place = (self.key_of_text[texts], texts)
        spelled = sparse.csr_matrix(
            (np.ones(len(texts), np.float32), place), (len(self.keys), self.texts.shape[0])
        )
        return (spelled @ self.texts).sign().tocsr()


def grams_remembered_from(texts: sparse.csr_matrix, asked: AskedTexts, rule: Remember) -> Array:
    """int64 [V]: `remembered_from` of n-grams, from the texts [T, V] that have them and who asked those.

    An n-gram of a text that may be remembered may be, too. Only of those that are in rare texts alone customers are
    counted, which bounds the work.
    """
    by_text = remembered_from(asked.texts, asked.customers, asked.days, rule, texts.shape[0])
    found = np.full(texts.shape[1], NEVER, np.int64)
    cells = texts.tocoo()
    np.minimum.at(found, cells.col, by_text[cells.row])
    left = np.flatnonzero(found == NEVER)
    rare = texts[:, left].tocsr()[asked.texts].tocoo()
    found[left] = remembered_from(
        rare.col.astype(np.int64), asked.customers[rare.row], asked.days[rare.row], rule, len(left)
    )
    return found


def _popularity(counts: list[Array]) -> Array:
    """Share of events per item and half-life [C, H], each smoothed towards the all-time one."""
    ever = counts[0] + 0.5
    ever = ever / ever.sum()
    recent = [(c + _SMOOTHING * ever) / (c.sum() + _SMOOTHING) for c in counts[1:]]
    return np.stack([ever, *recent], axis=1)


def rarity(counts: Array, documents: int) -> Array:
    """The idf of n-grams that `counts` [V] of so many documents have."""
    return np.asarray(np.log1p(documents / (counts + 1)))


def alike_weights(matrix: sparse.csr_matrix, idf: Array) -> sparse.csr_matrix:
    """Rows weighted by idf and of length 1."""
    weighted = sparse.csr_matrix(matrix.multiply(idf))
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, 1e-6)) @ weighted)


def of_titles(titles: Postings, idf: Array, is_word: Array) -> Array:
    """`SearchTables.title`: float32 [C, 2]."""
    words = titles.sums(is_word.astype(np.float32))
    average = words[words > 0].mean() if (words > 0).any() else 1.0
    shorter = 2 / (2 - _BM25_B + _BM25_B * words / average)
    lengths = np.sqrt(titles.sums(idf.astype(np.float32) ** 2))
    return np.stack([1 / np.maximum(lengths, 1e-6), shorter], axis=1).astype(np.float32)


def _says(counts: sparse.csr_matrix, prior: Array) -> tuple[Postings, Array]:
    """What each n-gram says about items: naive Bayes smoothed to popularity.

    With P(i|g) = (n_gi + m·p_i) / (n_g + m): log P(i|g) / p_i is a constant of g where n_gi is 0, more elsewhere; so
    only the rest is stored. A gram's weight in the mixture of P(i|g) is how far it is from popularity (KL divergence).
    """
    counts = sparse.csr_matrix(counts)
    total = np.asarray(counts.sum(1)).ravel()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    p = prior[counts.indices]
    lift = np.log1p(counts.data / (GRAM_PRIOR * p))
    share = GRAM_PRIOR / (total + GRAM_PRIOR)
    constant = np.log(share)
    likely = (counts.data + GRAM_PRIOR * p) / (total[rows] + GRAM_PRIOR)
    more = likely * (constant[rows] + lift) - share[rows] * p * constant[rows]
    divergence = np.maximum(constant * share + np.bincount(rows, more, counts.shape[0]), 0)
    mixed = counts.data / (total[rows] + GRAM_PRIOR) * divergence[rows]
    postings = Postings(
        counts.indptr.astype(np.int32), counts.indices.astype(np.int32),
        np.stack([lift, mixed], axis=1).astype(np.float32), int(counts.shape[1]),
    )  # fmt: skip
    return postings, np.stack([constant, divergence, divergence * share, total > 0], axis=1)
