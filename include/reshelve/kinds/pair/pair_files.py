"""The files of a pair ranker: pairs of the kind that `examples.labels` names, tokenised, with their features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reshelve.examples import choices
from reshelve.examples.choices import TextPair
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import HOLDOUT, PAIR_EXAMPLES, HoldoutQuery, write_rows
from reshelve.examples.misspelling import Misspelling
from reshelve.examples.readers import to_draw
from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.examples.workspace import Workspace, reading
from reshelve.kinds.pair import grades, impressions
from reshelve.kinds.pair.shortlists import Shortlists
from reshelve.logs import logger

_ROWS = 4096  # whose features are made at once


def write_pairs(work: Workspace) -> dict[str, int]:
    """Write train, validation and holdout; the number of rows of each."""
    drawn = _SOURCES[work.run.ranker.examples.labels](work)
    features = _Features(work) if work.run.ranker.examples.features else None
    counts = {
        part: write_rows(
            work.directory / f"{part}.parquet",
            PAIR_EXAMPLES,
            _rows(work, list(drawn.pairs(part, limit)), reading(work.run.ranker, part), features),
        )
        for part, limit in work.limits.items()
    }
    counts["holdout"] = write_rows(
        work.directory / "holdout.parquet", HOLDOUT, (query.row() for query in drawn.held_out())
    )
    _warn_of_single(work.directory)
    return counts


def held_out_pairs(work: Workspace) -> Iterator[HoldoutQuery]:
    """The held-out questions alone."""
    return _SOURCES[work.run.ranker.examples.labels](work).held_out()


def _warn_of_single(directory: Path) -> None:
    """Lists of one item order nothing: no loss within lists learns from them, and no metric of an order counts them."""
    for part in ("train", "validation"):
        sizes = np.unique(
            pq.read_table(directory / f"{part}.parquet", columns=["group"])["group"], return_counts=True
        )[1]
        _warn(part, int((sizes == 1).sum()), len(sizes))
    asked = pq.read_table(directory / "holdout.parquet", columns=["candidates"])["candidates"]
    _warn("holdout", pc.sum(pc.equal(pc.list_value_length(asked), 1)).as_py() or 0, len(asked))


def _warn(part: str, single: int, lists: int) -> None:
    if single:
        logger(stage="examples").warning(
            "lists of one item cannot be ranked", part=part, lists=single, of=lists
        )


def _rows(
    work: Workspace, found: list[TextPair], misspelt: Misspelling, features: _Features | None
) -> Iterator[dict[str, Any]]:
    ranker = work.run.ranker
    tokenizer = load_tokenizer(work.directory / "tokenizer.json", ranker.model.max_length)
    queries = [misspelt.of(one.query) for one in found]
    beside = features.of(found, queries) if features and found else None
    encodings = encode(tokenizer, ((query, one.title) for query, one in zip(queries, found, strict=True)))
    for place, (one, encoding) in enumerate(zip(found, encodings, strict=True)):
        yield {
            "input_ids": encoding.ids,
            "token_type_ids": encoding.type_ids,
            "label": one.label,
            "weight": one.weight,
            "group": one.group,
            "features": None if beside is None else beside[place],
        }


class _Choices:
    def __init__(self, work: Workspace) -> None:
        self._work = work
        ranker = work.run.ranker
        self.pairs = choices.PairSampler(
            work.connection, work.catalogue, ranker.examples, ranker.training.seed
        ).pairs

    def held_out(self) -> Iterator[HoldoutQuery]:
        work, ranker = self._work, self._work.run.ranker
        labels = ranker.data.label_weights
        events, spill = work.directory / "events.parquet", work.scratch / "spill"
        past = EventCounts(events, work.catalogue, labels, work.split.begins, spill, ranker.remember)
        shortlist = Shortlists(past).of
        return choices.held_out(work.connection, shortlist, to_draw(ranker), ranker.training.seed)


class _Judgements:
    def __init__(self, work: Workspace) -> None:
        self._work = work
        self._grades = work.run.ranker.examples.grades

    def pairs(self, part: str, limit: int) -> Iterator[TextPair]:
        return grades.pairs(self._work.connection, self._work.catalogue, part, limit, self._grades)

    def held_out(self) -> Iterator[HoldoutQuery]:
        work, ranker = self._work, self._work.run.ranker
        return grades.held_out(
            work.connection, work.catalogue, to_draw(ranker), ranker.training.seed, self._grades
        )


class _Impressions:
    def __init__(self, work: Workspace) -> None:
        self._work = work
        part = work.split.fold.part if work.split.fold else "split.part"
        impressions.open_impressions(work.connection, part, work.run.ranker.examples.attribution_minutes)

    def pairs(self, part: str, limit: int) -> Iterator[TextPair]:
        return impressions.pairs(self._work.connection, self._work.catalogue, part, limit)

    def held_out(self) -> Iterator[HoldoutQuery]:
        work, ranker = self._work, self._work.run.ranker
        return impressions.held_out(work.connection, work.catalogue, to_draw(ranker), ranker.training.seed)


_SOURCES: dict[str, Callable[[Workspace], _Choices | _Judgements | _Impressions]] = {
    "choices": _Choices, "judgements": _Judgements, "impressions": _Impressions
}  # fmt: skip


class _Features:
    """The features of pairs, each as it was known on the morning of its day; writes the tables of the held-out one."""

    def __init__(self, work: Workspace) -> None:
        # TensorFlow takes seconds to load: only the rankers that ask for features wait for it.
        from reshelve.features.features import write_tables
        from reshelve.features.impression_counts import ImpressionCounts
        from reshelve.features.overlap import Rarity

        self._names = work.run.ranker.examples.features
        self._rarity = Rarity.of(list(work.catalogue.titles)) if "text" in self._names else None
        self._seen: ImpressionCounts | None = None
        rates = None
        if "behaviour" in self._names:
            self._seen = ImpressionCounts(work.connection, _SEEN, work.run.ranker.remember)
            rates = self._seen.rates(work.split.begins)
        write_tables(work.directory, self._rarity, rates)

    def of(self, found: list[TextPair], queries: list[str]) -> np.ndarray:
        """float32 [N, F] of the pairs, whose queries may be misspelt."""
        import tensorflow as tf

        from reshelve.features.features import PairFeatures

        parts = []
        for day, same in groupby(range(len(found)), key=lambda place: found[place].day):
            places = list(same)
            asked = ([queries[place] for place in places], [found[place].item for place in places])
            rates = self._seen.rates(day or date.max, asked) if self._seen else None
            module = PairFeatures(self._names, self._rarity, rates)
            for start in range(0, len(places), _ROWS):
                chosen = [found[place] for place in places[start : start + _ROWS]]
                texts = [queries[place] for place in places[start : start + _ROWS]]
                parts.append(
                    module.features(
                        tf.constant(texts),
                        tf.constant([one.item for one in chosen]),
                        tf.constant([one.title for one in chosen]),
                        tf.constant([float(one.position or 1) for one in chosen]),
                    ).numpy()
                )
        return np.concatenate(parts)


_SEEN = "SELECT norm, item_id, day, chosen_on, customer FROM impressions WHERE part <> 'holdout'"
