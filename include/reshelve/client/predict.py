"""Ask for a ranked answer, as a shop would: the `predict` verb."""

from __future__ import annotations

from typing import Any

import numpy as np

from reshelve.client.client import Answer, NothingServesError, RankingClient
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import DataError, ReshelveError
from reshelve.kind import Inputs
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.protocol.version_items import Item, read_catalogue
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, object_store

_BY_TEXT = 30
_BY_DEMAND = 10


def predict(
    ranker: Ranker,
    *,
    history: str | None = None,
    query: str | None = None,
    items: list[str] | None = None,
    top: int = 5,
    version: int | None = None,
) -> dict[str, Any]:
    """`{"version", "items": [{"item", "title", "score"}, …]}`, best first, from the stable version or from `version`.

    With a history that names what no item is called, also `notes`: sentences that say so.
    Raises ConfigurationError where the question does not fit the ranker, NothingServesError where nothing serves.
    """
    requests = kind_of(ranker.kind).requests
    requests.check_question(ranker.name, history, query, items)
    with RankingClient(settings().model_server) as client:
        try:
            inputs = None if items else requests.of_text(str(history or query))
            if inputs:
                answer = _of_catalogue(client, ranker, inputs, top, version)
                notes = _notes(ranker, answer["version"], requests.titles_in(str(history or query)))
                return {**answer, "notes": notes} if notes else answer
            return _of_candidates(client, ranker, str(query), items, top, version)
        except NothingServesError as error:
            what = "no stable version" if version is None else f"no version {version}"
            detail = f"{error.detail}\nrelease one: reshelve release --ranker {ranker.name} --version …; see reshelve status"
            raise NothingServesError(f"{ranker.name}: {client.address} serves {what}", detail) from error


def _of_catalogue(
    client: RankingClient, ranker: Ranker, inputs: Inputs, top: int, version: int | None
) -> dict[str, Any]:
    answer = client.predict(ranker.name, inputs, version=version)
    names, titles, scores = (_output(answer, name)[0] for name in ("item", "title", "score"))
    order = np.argsort(-scores, kind="stable")[:top]
    found = [{"item": names[i], "title": titles[i], "score": float(scores[i])} for i in order]
    return {"version": answer.version, "items": found}


def _notes(ranker: Ranker, version: int, titles: list[str]) -> list[str]:
    """What is to be said of the titles of a history; nothing where the version's catalogue is out of reach."""
    if not titles:
        return []
    try:
        catalogue = read_catalogue(object_store(), ranker.name, version)
    except ReshelveError as error:  # the answer does not need it
        logger().info("the titles of the history are not compared with the catalogue", reason=error.headline)
        return []
    return [
        f"no item of version {version} has the title {title!r}: it is read as text alone"
        for title in unknown_titles(catalogue, titles)
    ]


def unknown_titles(catalogue: list[Item], titles: list[str]) -> list[str]:
    """Those of `titles` that are no item's title or id, whatever their case and blanks; a title may itself hold ` ; `."""
    known = {_spelled(name) for item in catalogue for name in (item.id, item.title)}
    longest = max(name.count(";") + 1 for name in known)
    found: set[int] = set()
    for first in range(len(titles)):
        for last in range(first + 1, min(first + longest, len(titles)) + 1):
            if ";".join(map(_spelled, titles[first:last])) in known:
                found.update(range(first, last))
    return [title for place, title in enumerate(titles) if place not in found]


def _spelled(title: str) -> str:
    return ";".join(" ".join(piece.split()) for piece in title.lower().split(";"))


def _of_candidates(
    client: RankingClient, ranker: Ranker, query: str, items: list[str] | None, top: int, version: int | None
) -> dict[str, Any]:
    store = object_store()
    serving = version if version is not None else _stable(store, ranker)
    catalogue = read_catalogue(store, ranker.name, serving)
    candidates = items or shortlist(catalogue, query)
    # Candidates and scores must be of one version: ask for it by number, not by a label that may move meanwhile.
    signature = kind_of(ranker.kind).requests.candidates_signature() or "serving_default"
    inputs = {"query": [query], "item": candidates}
    answer = client.predict(ranker.name, inputs, version=serving, signature=signature)
    scores = _output(answer, "score").ravel()
    if len(scores) != len(candidates):
        raise DataError(f"{ranker.name} version {serving}: {len(scores)} scores for {len(candidates)} items")
    titles = {item.id: item.title for item in catalogue}
    order = np.argsort(-scores, kind="stable")[:top]
    found = [
        {"item": candidates[i], "title": titles.get(candidates[i], candidates[i]), "score": float(scores[i])}
        for i in order
    ]
    return {"version": answer.version, "items": found}


def _stable(store: ObjectStore, ranker: Ranker) -> int:
    pointer = read_pointer(store, ranker.name)
    if pointer is None or pointer.stable is None:
        raise NothingServesError(f"{ranker.name}: nothing was released yet", "there is no stable version")
    return pointer.stable


def _output(answer: Answer, name: str) -> np.ndarray[Any, Any]:
    if name not in answer.outputs:
        raise DataError(
            f"version {answer.version} has no output {name!r}", f"it has {', '.join(sorted(answer.outputs))}"
        )
    return np.asarray(answer.outputs[name])


def shortlist(catalogue: list[Item], query: str) -> list[str]:
    """Item ids worth a score: those whose titles fit the query's words best (BM25), and the most wanted ones."""
    import bm25s

    wanted = [item.id for item in sorted(catalogue, key=lambda item: -item.events)[:_BY_DEMAND]]
    words = bm25s.tokenize([item.title for item in catalogue], stopwords=None, show_progress=False)
    asked = bm25s.tokenize([query], stopwords=None, show_progress=False)
    if not words.vocab or not asked.vocab:
        return wanted
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    places, scores = index.retrieve(asked, k=min(_BY_TEXT, len(catalogue)), show_progress=False)
    by_text = [
        catalogue[int(place)].id for place, score in zip(places[0], scores[0], strict=True) if score > 0
    ]
    return list(dict.fromkeys([*by_text, *wanted]))
