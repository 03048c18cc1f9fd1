"""Peers of a search ranker on its own evidence, without the transformer: what that brings, and what our network brings.

`network`: the blend's network, fitted anew without the encoder. `lightgbm`: gradient-boosted trees (LambdaRank; Burges:
From RankNet to LambdaRank to LambdaMART, 2010) in its place. Both learn from the shortlists of the same validation days,
weighed alike, and both order the whole catalogue by what the night's own memory says of it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.lineage.run import Run

if TYPE_CHECKING:
    from reshelve.features.blend import Lists

NETWORK, LIGHTGBM = "network", "lightgbm"
LEFT_OUT = (
    "lightgbm was left out: it is not installed. To have it: "
    ".venv/bin/pip install --no-build-isolation -e '.[bench]' -c constraints.txt"
)

Array = np.ndarray
Scores = Callable[[Array], Array]  # features float32 [Q, C, F] → [Q, C]
_BATCH = 32
# Tried on 2011-09-20, -22 and -24, days before those that the figures are of: decision 0100 has the others.
_TREES = {
    "objective": "lambdarank", "lambdarank_truncation_level": 10, "learning_rate": 0.05, "num_leaves": 15,
    "min_data_in_leaf": 50, "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0,
    "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip
_ROUNDS = 200


def version() -> str | None:
    """LightGBM's, or None where it is not installed."""
    return importlib.metadata.version(LIGHTGBM) if importlib.util.find_spec(LIGHTGBM) else None


def answers(
    run: Run, queries: list[HoldoutQuery], catalogue: Catalogue
) -> dict[str, tuple[list[list[str]], float]]:
    """Of each peer the ranked items of each question, best first, and the seconds to fit it and to rank.

    The blend stage must be done; the lists that it learned from are read anew, without the encoder.
    """
    import tensorflow as tf

    from reshelve.features.blend import Lists
    from reshelve.features.evidence import SearchEvidence
    from reshelve.features.tables import SearchTables
    from reshelve.kinds.search.blend_stage import past_questions

    lists = Lists.joined(past_questions(run).lists)
    evidence = SearchEvidence(SearchTables.read(run.stage("blend").files()))
    found = {}
    for name, fit in ((NETWORK, network), (LIGHTGBM, lambdarank)):
        if name == LIGHTGBM and version() is None:
            continue
        began = time.monotonic()
        scores, ranked = fit(lists, run.ranker.training.seed), []
        for start in range(0, len(queries), _BATCH):
            texts = tf.constant([query.text for query in queries[start : start + _BATCH]])
            best = np.argsort(-scores(evidence.features(texts).numpy()), axis=1, kind="stable")
            ranked += [[catalogue.items[place] for place in row[: run.ranker.release.top]] for row in best]
        found[name] = ranked, round(time.monotonic() - began, 1)
    return found


def network(lists: Lists, seed: int) -> Scores:
    """The blend's own network."""
    import tensorflow as tf

    from reshelve.features.blend import fit

    fitted = fit(lists, seed)
    return lambda features: fitted.scores(tf.constant(features)).numpy()


def lambdarank(lists: Lists, seed: int) -> Scores:
    """LightGBM, one question for each item chosen, weighed by how often."""
    import lightgbm

    questions, places = np.nonzero(lists.chosen)
    features = lists.features[questions]
    count, items, width = features.shape
    chosen = np.arange(items) == places[:, None]
    weights = lists.weights[questions] * lists.chosen[questions, places]
    data = lightgbm.Dataset(
        features.reshape(-1, width), chosen.ravel().astype(np.float32),
        group=np.full(count, items), weight=np.repeat(weights, items),
    )  # fmt: skip
    booster = lightgbm.train({**_TREES, "seed": seed}, data, _ROUNDS)
    return lambda found: np.asarray(booster.predict(found.reshape(-1, width))).reshape(found.shape[:2])
