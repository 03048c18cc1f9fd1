"""How a pair version is asked and counted: each question has a shortlist, and every score of it is a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from reshelve.client.client import finite
from reshelve.evaluation.scoring import Served, ServedModel, order
from reshelve.examples.formats import HoldoutQuery
from reshelve.kind import Evaluation
from reshelve.kinds.query_evaluation import AsksQuery


class PairEvaluation(AsksQuery, Evaluation):
    """A shortlist's order."""

    whole_lists = True
    questions = 200

    def answers(self, served: ServedModel, queries: Sequence[HoldoutQuery]) -> Iterator[Served]:
        # Neighbours in the file ask the same text of the same shortlist: one request answers them all.
        for (query, candidates), same in groupby(queries, key=lambda q: (q.text, tuple(q.candidates))):
            (scores,) = served.ask({"query": [query], "item": list(candidates)}, ["score"], len(candidates))
            values = scores.reshape(-1).tolist()
            ordered = order(candidates, values, served.known)
            given = dict(zip(candidates, values, strict=True))
            sound = [given[item] if item in served.known else math.nan for item in ordered]
            for _ in same:
                yield ordered, sound, finite(scores)


FACET = PairEvaluation()
