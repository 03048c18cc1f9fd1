"""The blend stage: what the shop remembers and what the transformer reads, weighed on days that neither has seen.

Each validation day is asked as it came: the memory of the morning before it, the encoder of training days alone. A blend
with the encoder and one without are compared on the newest of those days; the transformer stays where it is better there
by an interval that excludes zero.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import sparse

from reshelve.errors import DataError
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.sampling import stable_hash
from reshelve.features.blend import Blend, Lists, fit
from reshelve.features.candidates import NEVER, CandidateEvidence, narrows
from reshelve.features.evidence import FEATURES, SearchEvidence
from reshelve.features.tables import Corpus, SearchTables
from reshelve.kinds.search.past_searches import SearchMemory, read_corpus
from reshelve.lineage.results import ExamplesResult
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.progress import counted
from reshelve.statistics.bootstrap import LEAST_CLUSTERS, bootstrap
from reshelve.statistics.interval import Interval
from reshelve.statistics.order import descending, greatest

_SHORTLIST = 64
# Shortlists are the best by these, fused by reciprocal rank: every item they leave out is far from all of them.
_ROUGH = ("chosen_4d", "alike3_16d", "bm25", "title_cosine", "grams_mixture", "popularity_4d")
_RANK_OFFSET = 3
_MOST_QUESTIONS = 20_000  # in all; beyond, a blend of a few hundred numbers learns nothing more
_CELLS = 4_000_000  # items · queries of one batch: bounds memory whatever the catalogue
_CANDIDATES_STEP = 32  # queries at a time whose candidates are looked at
_HALF_LIFE = 14.0  # days: what a question counts for in the fit
_TESTED_SHARE = 0.25  # newest part of the validation days, on which the blends are compared

Array = np.ndarray


class BlendDocument(BaseModel):
    """`blend.json`. `encoder`: whether the transformer's logits are the last feature."""

    model_config = ConfigDict(frozen=True)

    encoder: bool
    features: tuple[str, ...]


@dataclass(frozen=True)
class _Day:
    """One validation day: its distinct queries, and the weight of each item's choices under each [Q, C]."""

    day: date
    queries: list[str]
    chosen: sparse.csr_matrix


@dataclass(frozen=True)
class PastQuestions:
    """The memory of any morning until that of the judged day, and the shortlists of each validation day, oldest first."""

    memory: SearchMemory
    days: list[date]
    lists: list[Lists]


def blend(run: Run) -> dict[str, Any]:
    """Write `memory.*`, `blend.safetensors` and `blend.json`.

    Raises DataError where the validation days hold no search.
    """
    log = logger(stage="blend", run=run.id)
    directory = run.stage("blend").directory
    begins = run.stage("examples").require(ExamplesResult).begins
    asked = past_questions(run, run.stage("train").files())
    lists = asked.lists
    compared = compare(lists, run.ranker.training.seed)
    encoder = compared.proves_the_encoder
    everything = Lists.joined(lists)
    everything = everything if encoder else everything.without(len(FEATURES))
    fitted = fit(everything, run.ranker.training.seed)
    remembered = asked.memory.tables(begins)
    remembered.write(directory)
    fitted.write(directory / "blend.safetensors")
    document = BlendDocument(encoder=encoder, features=(*FEATURES, "encoder") if encoder else FEATURES)
    (directory / "blend.json").write_text(document.model_dump_json(indent=1))
    log.info("fitted", encoder=encoder, loss_with_encoder_minus_without=compared.difference.signed)
    return {
        "encoder": encoder,
        "losses": compared.losses,
        "difference": compared.difference._asdict(),
        "questions": len(everything.weights),
        "partitions": [str(day) for day in asked.days],
        "queries_remembered": len(remembered.keys),
        **asked.memory.about,
    }


def past_questions(run: Run, train: Path | None = None) -> PastQuestions:
    """Every validation day asked as it came, a question weighed by its age. Last feature: the encoder in `train`, if any.

    Raises DataError where these days hold no search, or choices only that are far from their queries.
    """
    log = logger(stage="blend", run=run.id)
    examples, known = run.stage("examples").files(), run.stage("examples").require(ExamplesResult)
    catalogue = Catalogue.read(examples / "catalogue.parquet")
    with tempfile.TemporaryDirectory(dir=run.stage("blend").directory, prefix=".spill-") as spill:
        corpus = read_corpus(examples, catalogue, run, Path(spill))
    memory = SearchMemory.of(corpus, examples, catalogue, run)
    log.info("searches", texts=len(corpus.searches.texts), queries=len(corpus.keys), grams=len(corpus.grams))
    days = _days(corpus, [date.fromisoformat(day) for day in known.validation_partitions], run)
    if not days:
        raise DataError("the validation days hold no search", "expected label events with a query")
    reader = None if train is None else _Encoder(train)
    candidates, least = run.ranker.release.candidates, run.ranker.release.top
    lists = []
    for day in counted(days, log, "asking the validation days", "days"):
        age = (days[-1].day - day.day).days
        lists.append(_lists(memory, day, reader, 2.0 ** (-age / _HALF_LIFE), candidates, least))
    log.info("asked", days=len(days), queries=sum(len(day.queries) for day in days))
    _require_choices(Lists.joined(lists), days)
    return PastQuestions(memory, [day.day for day in days], lists)


def _require_choices(lists: Lists, days: list[_Day]) -> None:
    if not lists.chosen.any():
        raise DataError(
            "nothing that was chosen on the validation days is near its query",
            f"expected choices among the best {_SHORTLIST} items between {days[0].day} and {days[-1].day}",
        )


def read_blend(directory: Path) -> tuple[BlendDocument, Blend]:
    """What the stage wrote. Raises DataError where it is of other code."""
    try:
        document = BlendDocument.model_validate(json.loads((directory / "blend.json").read_bytes()))
    except (OSError, ValidationError, ValueError) as error:
        raise DataError(f"{directory / 'blend.json'}: cannot be read", str(error)) from error
    if document.features[: len(FEATURES)] != FEATURES:
        raise DataError(
            f"{directory / 'blend.json'}: made by other code", "expected the features of this one"
        )
    return document, Blend.read(directory / "blend.safetensors")


def _days(corpus: Corpus, days: list[date], run: Run) -> list[_Day]:
    searches, found = corpus.searches, []
    most = max(1, _MOST_QUESTIONS // max(1, len(days)))
    for day in days:
        places = np.flatnonzero(searches.days == day.toordinal())
        asked = sorted(
            np.unique(searches.text[places]).tolist(),
            key=lambda text: stable_hash(run.ranker.training.seed, searches.texts[text]),
        )[:most]
        row = np.full(len(searches.texts), -1)
        row[asked] = np.arange(len(asked))
        drawn = places[row[searches.text[places]] >= 0]
        cells = (row[searches.text[drawn]], searches.items[drawn])
        shape = (len(asked), corpus.items)
        if asked:
            queries = [searches.texts[text] for text in asked]
            weights = searches.weights[drawn].astype(np.float32)
            found.append(_Day(day, queries, sparse.csr_matrix((weights, cells), shape)))
    return found


def _lists(
    memory: SearchMemory, day: _Day, reader: _Encoder | None, weight: float, candidates: int, least: int
) -> Lists:
    look = _looker(memory.tables(day.day), candidates, least)
    features, chosen = [], []
    for start in range(0, len(day.queries), look.step):
        queries = day.queries[start : start + look.step]
        places, valid, found = look.at(queries)
        if reader is not None:
            read = np.take_along_axis(reader.logits(queries), places, axis=1)
            found = np.concatenate([found, read[..., None]], axis=-1)
        weights = day.chosen[start : start + look.step][np.arange(len(queries))[:, None], places].toarray()
        kept = shortlist(found, valid)
        features.append(np.take_along_axis(found, kept[..., None], axis=1))
        chosen.append(np.take_along_axis(np.where(valid, weights, 0), kept, axis=1))
    return Lists(
        np.concatenate(features), np.concatenate(chosen), np.full(len(day.queries), weight, np.float32),
        np.array(day.queries),
    )  # fmt: skip


@dataclass(frozen=True)
class _Looker:
    """`at`: queries → places [Q, N], which of them are items, features [Q, N, F]. `step`: queries at a time."""

    step: int
    at: Callable[[list[str]], tuple[Array, Array, Array]]


def _looker(tables: SearchTables, most: int, least: int) -> _Looker:
    """All items of a small catalogue, the candidates of a large one: as the version will."""
    items = len(tables.popularity)
    if narrows(items, most):
        named = CandidateEvidence(tables, most, least)

        def candidates(queries: list[str]) -> tuple[Array, Array, Array]:
            found, features = named.features(tf.constant(queries))
            return found.places.numpy(), found.stands_for.numpy() > NEVER / 2, features.numpy()

        return _Looker(_CANDIDATES_STEP, candidates)
    whole = SearchEvidence(tables)

    def everything(queries: list[str]) -> tuple[Array, Array, Array]:
        places = np.tile(np.arange(items), (len(queries), 1))
        return places, np.ones_like(places, bool), whole.features(tf.constant(queries)).numpy()

    return _Looker(max(1, min(256, _CELLS // items)), everything)


def shortlist(features: Array, valid: Array | None = None) -> Array:
    """Places [Q, K] of the best items, from float32 [Q, N, F], by the sum of 1 / (offset + rank) over the rough features.

    Those that are not `valid` [Q, N] come last.
    """
    shape, places = features.shape[:2], np.arange(features.shape[1])[None, :]
    fused, ranks = np.zeros(shape, np.float32), np.empty(shape, np.int64)
    for name in _ROUGH:
        values = features[..., FEATURES.index(name)]
        order = descending(values if valid is None else np.where(valid, values, -np.inf))
        np.put_along_axis(ranks, order, places, axis=1)
        fused += 1.0 / (_RANK_OFFSET + ranks)
    return greatest(fused if valid is None else np.where(valid, fused, -1.0), _SHORTLIST)


@dataclass(frozen=True)
class BlendComparison:
    """Nats per choice of both blends (`memory`, `with_encoder`), and how many more the encoder's has, with its interval."""

    losses: dict[str, float]
    difference: Interval
    queries: int

    @property
    def proves_the_encoder(self) -> bool:
        """Whether the difference is one, rather than the luck of the queries that were asked."""
        return self.queries >= LEAST_CLUSTERS and self.difference.high < 0


def compare(lists: list[Lists], seed: int) -> BlendComparison:
    """Losses on the newest days of blends fitted on the others; where there is one day, on the half of its queries."""
    earlier, newest = _parted(lists, seed)
    without = len(FEATURES)
    memory = fit(earlier.without(without), seed).losses(newest.without(without))
    read = fit(earlier, seed).losses(newest)
    weights = newest.choices
    losses = {
        name: float(np.average(found, weights=weights))
        for name, found in (("memory", memory), ("with_encoder", read))
    }
    difference = bootstrap(read - memory, weights, newest.queries, seed)
    return BlendComparison(losses, difference, len(set(newest.queries)))


def _parted(lists: list[Lists], seed: int) -> tuple[Lists, Lists]:
    """What the blends are fitted on, and what they are compared on: never the same, where there are two queries."""
    tested = max(1, round(len(lists) * _TESTED_SHARE))
    if len(lists) > tested:
        earlier, newest = Lists.joined(lists[:-tested]), Lists.joined(lists[-tested:])
        if len(earlier.weights) and len(newest.weights):
            return earlier, newest
    everything = Lists.joined(lists)
    names = sorted(set(everything.queries), key=lambda query: stable_hash(seed, query))
    first = np.isin(everything.queries, names[: -(-len(names) // 2)])
    return everything.of(first), everything.of(~first if not first.all() else first)


class _Encoder:
    """The trained transformer: what it makes of a query beyond how popular items were when it was trained."""

    def __init__(self, train: Path) -> None:
        from reshelve.training.model import RankerModel

        self._model = RankerModel.load(train)
        self._tokenizer = train / "tokenizer.json"

    def logits(self, queries: list[str]) -> Array:
        """float32 [Q, C]: logits without their bias, which is the popularity of training days."""
        import torch

        from reshelve.export.batches import padded, text_rows

        batch = padded(text_rows(self._tokenizer, self._model.form.max_length, queries))
        present = np.arange(batch.ids.shape[1])[None, :] < batch.lengths[:, None]
        with torch.no_grad():
            logits = self._model(
                torch.from_numpy(batch.ids.astype(np.int64)), torch.from_numpy(present.astype(np.int64))
            )
            return np.asarray((logits - self._model.items.bias).float().numpy())
