"""The gate of a version that has another's model and a newer product list: what it said before it says still, and new items are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from reshelve.client.client import RankingClient
from reshelve.evaluation.judgement import CHALLENGER, CHAMPION
from reshelve.evaluation.scoring import text
from reshelve.examples.changed_catalogue import CatalogueChange
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.modelserver.local_server import running_model_server
from reshelve.store.versions import download_version, sign_result

MOST_MOVED = 0.05
"""Of an answer: the share of its score, among items that stay, that may be another item's afterwards."""
MOST_OF_OTHERS = 0.01
"""Share of an answer that items may have that do not stay, for the answer to be compared."""
LEAST_COMPARED = 0.5
"""Share of the known and remembered texts whose answers have to be compared: of fewer nobody knows that nothing has moved."""
MOST_RETITLED = 0.2
"""Share of the items that stay which may be called something else: a list whose titles are mixed up renames many."""
MOST_ASKED = 1000  # new titles
_TOGETHER = 32
_SECONDS = 60.0
_VERSION = 1
_NAMED = 5


class _Asked:
    """The version before and the one after, in one model server."""

    def __init__(self, client: RankingClient, score: str, name: str) -> None:
        self._client, self._score, self._query = client, score, name

    def answers(self, servable: str, texts: Sequence[str]) -> list[tuple[list[str], np.ndarray, list[str]]]:
        """Of each text the items, best first, their scores and their titles."""
        found = []
        for start in range(0, len(texts), _TOGETHER):
            inputs = {self._query: list(texts[start : start + _TOGETHER])}
            said = self._client.predict(servable, inputs, version=_VERSION, timeout=_SECONDS).outputs
            for items, scores, titles in zip(said["item"], said["score"], said["title"], strict=True):
                found.append(([text(item) for item in items], scores, [text(title) for title in titles]))
        return found

    def scores(self, servable: str, query: str, items: Sequence[str]) -> np.ndarray:
        """What a version makes of these items."""
        inputs = {self._query: [query], "item": list(items)}
        answer = self._client.predict(
            servable, inputs, version=_VERSION, signature=self._score, timeout=_SECONDS
        )
        return np.asarray(answer.outputs["score"]).ravel()


def judge_refresh(
    run: Run, parent: int, change: CatalogueChange, known: Sequence[str], remembered: Sequence[str]
) -> dict[str, Any]:
    """Judge the run's packaged version beside `parent`, which serves: `known` are the texts of its known answers.

    Rejected where an answer to a known or remembered text has moved; held, for a person to look at, where an item does not
    come under its own title, where too few answers could be compared, or where many items are called something else.
    """
    stage = run.stage("gate").directory
    scratch = stage / ".scratch"
    before = scratch / "champion" / str(parent)
    before.parent.mkdir(parents=True, exist_ok=True)
    download_version(run.store, run.ranker.name, parent, before)
    version = run.stage("package").files() / "version"
    requests = kind_of(run.ranker.kind).requests
    signature = requests.candidates_signature() or "serving_default"
    (name,) = requests.of_text("") or {"query": []}
    with (
        running_model_server({CHAMPION: before, CHALLENGER: version}) as at,
        RankingClient(at.grpc) as client,
    ):
        asked = _Asked(client, signature, name)
        texts = [*dict.fromkeys([*known, *remembered])]
        moved = _moved(asked, change, texts)
        missed, looked_for = _missed(asked, change)
    shutil.rmtree(scratch)
    said = _judged(parent, change, moved, missed, asked_for=len(texts), looked_for=looked_for)
    result = sign_result(run.ranker.name, version, said)
    (stage / "report.json").write_text(json.dumps(result, indent=1, sort_keys=True))
    logger(stage="gate", run=run.id).info(
        "judged", verdict=result["verdict"], reasons=list(result["reasons"])
    )
    return result


def _judged(
    parent: int,
    change: CatalogueChange,
    moved: list[float],
    missed: list[str],
    *,
    asked_for: int,
    looked_for: int,
) -> dict[str, Any]:
    worst = max(moved, default=0.0)
    counts = change.counts()
    held = _doubts(change, len(moved), asked_for)
    if missed:
        named = ", ".join(missed[:_NAMED]) + (", …" if len(missed) > _NAMED else "")
        held.append(
            f"{len(missed)} of {looked_for} new or retitled items do not come under their own title: {named}"
        )
    reasons = [
        f"the model of version {parent} with {', '.join(f'{n} {what}' for what, n in counts.items())} items",
        f"compared the answers to {len(moved)} of {asked_for} questions",
        *held,
    ]
    verdict = "hold" if held else "promote"
    if worst > MOST_MOVED:
        verdict = "reject"
        reasons.append(
            f"an answer has moved by {worst:.3f} among items that stay; at most {MOST_MOVED} may, of each of {len(moved)} questions"
        )
    return {
        "verdict": verdict,
        "reasons": reasons,
        "champion": {"version": parent},
        "refreshed": {
            **counts, "asked": asked_for, "questions": len(moved), "moved_most": round(worst, 5),
            "moved_mean": round(float(np.mean(moved)), 5) if moved else 0.0,
            "looked_for": looked_for, "missed": len(missed),
        },
    }  # fmt: skip


def _doubts(change: CatalogueChange, compared: int, asked_for: int) -> list[str]:
    """Why what was compared says too little of the version."""
    found = []
    if compared < LEAST_COMPARED * asked_for:
        found.append(f"too few answers to compare: at least {LEAST_COMPARED:.0%} of the questions have to be")
    stay, retitled = int((~change.new).sum()), int(change.retitled.sum())
    if retitled > MOST_RETITLED * stay:
        found.append(
            f"{retitled} of the {stay} items that stay are called something else: more than {MOST_RETITLED:.0%}"
        )
    return found


def _moved(asked: _Asked, change: CatalogueChange, queries: Sequence[str]) -> list[float]:
    """Of each query half the sum of what its answer's shares have changed by, among items that stay as they were."""
    stay = {
        item
        for item, new, other in zip(change.items, change.new, change.retitled, strict=True)
        if not (new or other)
    }
    found = []
    for query, (items, scores, _) in zip(queries, asked.answers(CHAMPION, queries), strict=True):
        kept = [place for place, item in enumerate(items) if item in stay]
        if len(kept) < 2 or scores.sum() - scores[kept].sum() > MOST_OF_OTHERS * scores.sum():
            continue  # what was meant goes, or is called something else: another answer is due
        now = asked.scores(CHALLENGER, query, [items[place] for place in kept])
        found.append(0.5 * float(np.abs(_shares(now) - _shares(scores[kept])).sum()))
    return found


def _shares(scores: np.ndarray) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    total = values.sum()
    return values / total if np.isfinite(total) and total > 0 else np.zeros_like(values)


def _missed(asked: _Asked, change: CatalogueChange) -> tuple[list[str], int]:
    """Which of the items with a title of today are not in the answer to it, nor another of the same title; how many were looked for."""
    places = np.flatnonzero((change.new | change.retitled) & np.array([title != "" for title in change.read]))
    if len(places) > MOST_ASKED:
        places = places[np.linspace(0, len(places) - 1, MOST_ASKED).astype(int)]
    items, titles = ([names[place] for place in places.tolist()] for names in (change.items, change.titles))
    answers = asked.answers(CHALLENGER, titles)
    missed = [
        item
        for item, title, (found, _, called) in zip(items, titles, answers, strict=True)
        if item not in found and title not in called
    ]
    return missed, len(items)
