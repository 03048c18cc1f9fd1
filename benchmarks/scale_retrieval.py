"""Retrieval beside peers in one interleaved run: this version, FAISS over title vectors, bm25s over titles.

A version ranks; the others find by one thing alone, and would be ranked by something else after. So each is asked how much of the
exhaustive answer of the version's own features it finds among a hundred items, and whether it finds what was meant.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scale_given import TOP, Given
from scale_measure import cpu_seconds
from scale_shares import shares
from scale_steps import Found, Step, read_shop, read_titles
from scale_vectors import ENCODER, Encoder, Projections, chosen
from scale_version import Version

Array = np.ndarray
Retriever = Callable[[int], Sequence[int]]
"""Question → places of items, best first."""

OURS, FLAT = "reshelve", "FAISS flat"
_REST_SECONDS = 0.01  # lets a runtime's spinning threads come to rest before the next is timed
_PROBES, _LINKS, _BREADTH = 16, 32, 128  # FAISS: lists probed; HNSW's neighbours, and how many are looked at


def retrieval(here: Path, given: Given) -> Step:
    """Each retriever's recall and CPU-milliseconds a query."""
    names, drawn = read_titles(here), read_shop(here)
    wanted = np.load(here / "exhaustive.npy")

    def step() -> Found:
        version = Version(here / "search", given.threads)

        def ours(question: int) -> list[int]:
            answer = version([drawn.questions[question]])["item"][0]
            return [int(item.decode().removeprefix("sku-")) for item in answer]

        engines: dict[str, Retriever] = {OURS: ours}
        about: dict[str, dict[str, float]] = {OURS: {}}
        theirs, absent, vectors = _peers(names, drawn.questions, given, about)
        engines |= theirs
        found, used = in_turn(engines, len(drawn.questions))
        for name, places in found.items():
            about[name] |= {"cpu_ms": used[name]} | shares(places, wanted, drawn.meant)
            if FLAT in found:
                flat = np.array(found[FLAT])
                about[name]["flat_10"] = shares(places, flat, drawn.meant)["recall_10"]
        return {"found": about, "absent": absent, **vectors}

    return step


def in_turn(
    engines: dict[str, Retriever], questions: int
) -> tuple[dict[str, list[list[int]]], dict[str, float]]:
    """What each answers to each question, and the median CPU-milliseconds; the order turns from question to question."""
    names = list(engines)
    found: dict[str, list[list[int]]] = {name: [] for name in names}
    used: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        engines[name](0)  # warms up
    for question in range(questions):
        turn = question % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(_REST_SECONDS)
            cpu = cpu_seconds()
            places = engines[name](question)
            used[name].append((cpu_seconds() - cpu) * 1000)
            found[name].append([int(place) for place in places])
    return found, {name: round(float(np.median(times)), 3) for name, times in used.items()}


def _peers(
    names: list[str], questions: list[str], given: Given, about: dict[str, dict[str, float]]
) -> tuple[dict[str, Retriever], dict[str, str], dict[str, Any]]:
    """Retrievers by name, why the others are absent, and of what the vectors are."""
    makers = {FLAT: "Flat", "FAISS HNSW": f"HNSW{_LINKS},Flat", "FAISS IVF-PQ": "", "bm25s": ""}
    if given.peers is None:
        return {}, dict.fromkeys(makers, "no --peers DIR"), {}
    sys.path.append(str(given.peers))
    cpu = cpu_seconds()
    kind = chosen(given.vectors, len(names))
    read = Encoder(given.threads) if kind == ENCODER else Projections(names, given.seed)
    vectors = read(names)
    made = {"vectors": kind, "vectors_cpu_s": round(cpu_seconds() - cpu, 1), "dimensions": vectors.shape[1]}
    cpu = cpu_seconds()
    asked = np.concatenate([read([question]) for question in questions])
    made["query_vector_cpu_ms"] = round((cpu_seconds() - cpu) * 1000 / len(questions), 3)
    lists = int(4 * len(names) ** 0.5)
    makers["FAISS IVF-PQ"] = f"IVF{lists},PQ{vectors.shape[1] // 4}"
    found: dict[str, Retriever] = {}
    absent: dict[str, str] = {}
    for name, description in makers.items():
        cpu = cpu_seconds()
        try:
            if name == "bm25s":
                found[name] = _bm25s(names, questions)
            else:
                found[name] = _faiss(description, vectors, asked, given.threads)
        except Exception as error:  # noqa: BLE001 - whatever another project's tool raises is a reason to tell
            absent[name] = f"{type(error).__name__}: {error}"[:200]
        else:
            about[name] = {"build_cpu_s": round(cpu_seconds() - cpu, 2)}
    return found, absent, made


def _faiss(description: str, vectors: Array, asked: Array, threads: int) -> Retriever:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    if description.startswith("HNSW"):
        index.hnsw.efSearch = _BREADTH
    if description.startswith("IVF"):
        index.nprobe = _PROBES
        index.train(vectors)
    index.add(vectors)
    return lambda question: [
        place for place in index.search(asked[question : question + 1], TOP)[1][0].tolist() if place >= 0
    ]


def _bm25s(names: list[str], questions: list[str]) -> Retriever:
    import bm25s

    engine = bm25s.BM25()
    engine.index(bm25s.tokenize(names, stopwords=None, show_progress=False), show_progress=False)

    def asked(question: int) -> Sequence[int]:
        tokens = bm25s.tokenize([questions[question]], stopwords=None, show_progress=False)
        places, scores = engine.retrieve(tokens, k=min(TOP, len(names)), show_progress=False)
        return [int(place) for place in places[0][scores[0] > 0]]

    return asked
