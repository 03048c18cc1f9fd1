"""The steps of `bench_scale` over one catalogue, each run in a process of its own, which takes up where the one before left off.

A folder holds what they leave: `titles.parquet`, `shop.npz`, `tables/`, `search/` and `next_item/` (versions), `search.json`
(what the version answers to each question), `exhaustive.npy` (places of the best items of each).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scale_catalogue import Shop, histories, real_titles, shop, titles
from scale_given import TOP, Given
from scale_shares import shares

Found = dict[str, Any]
Step = Callable[[], Found]


def catalogue(here: Path, given: Given, items: int) -> Step:
    """Draw titles, searches and questions."""

    def step() -> Found:
        real = real_titles(given.data)
        names = titles(items, real, given.seed)
        drawn = shop(names, min(500_000, max(20_000, 10 * items)), given.questions, given.seed)
        write_shop(here, names, drawn)
        return {"real": min(items, len(real)), "searches": len(drawn.text), "queries": len(drawn.texts)}

    return step


def write_shop(here: Path, names: list[str], drawn: Shop) -> None:
    """`titles.parquet` and `shop.npz`."""
    pq.write_table(pa.table({"title": names}), here / "titles.parquet")
    pq.write_table(pa.table({"text": drawn.texts}), here / "texts.parquet")
    pq.write_table(pa.table({"text": drawn.questions, "meant": drawn.meant}), here / "questions.parquet")
    arrays = {name: getattr(drawn, name) for name in ("text", "items", "ago", "customers")}
    np.savez(here / "shop.npz", **arrays)


def read_titles(here: Path) -> list[str]:
    """Of the catalogue, the most wanted first."""
    return list(pq.read_table(here / "titles.parquet")["title"].to_pylist())


def read_shop(here: Path) -> Shop:
    """What `write_shop` wrote."""
    asked = pq.read_table(here / "questions.parquet")
    texts = pq.read_table(here / "texts.parquet")["text"].to_pylist()
    with np.load(here / "shop.npz") as kept:
        return Shop(texts, **dict(kept), questions=asked["text"].to_pylist(), meant=asked["meant"].to_numpy())


def tables(here: Path, given: Given) -> Step:
    """Of a search memory."""
    import scale_internals

    names, drawn = read_titles(here), read_shop(here)

    def step() -> Found:
        made = scale_internals.make_tables(drawn, names)
        (here / "tables").mkdir(exist_ok=True)
        made.write(here / "tables")
        return {"disk_mb": megabytes(here / "tables"), "keys": len(made.keys), "grams": len(made.grams)}

    return step


def blend(here: Path, given: Given) -> Step:
    """Weigh the features on questions whose answer is known; every size is asked with the same weights."""
    import scale_internals
    from scale_reference import Exhaustive

    drawn = read_shop(here)
    everything = Exhaustive(scale_internals.read_memory(here / "tables"))
    asked = scale_internals.cut(drawn.questions)

    def step() -> Found:
        found = [
            np.concatenate([block for _, block in everything.features(asked, query)])
            for query in range(len(drawn.questions))
        ]
        chosen = np.zeros((len(found), everything.items), np.float32)
        chosen[np.arange(len(found)), drawn.meant] = 1
        scale_internals.fit_blend(np.stack(found), chosen, given.seed, given.blend)
        return {}

    return step


def package(here: Path, given: Given, kind: str) -> Step:
    """Write the version."""
    import scale_internals
    import tensorflow as tf

    names = read_titles(here)
    model = scale_internals.random_model(kind, len(names), given.width)
    if kind == "search":
        shutil.copyfile(given.blend, here / "tables" / "blend.safetensors")

    def step() -> Found:
        if kind == "search":
            module = scale_internals.search_module(here / "tables", names, model)
        else:
            module = scale_internals.next_item_module(names, model)
        tf.saved_model.save(module, str(here / kind), signatures=module.signatures)
        graph = (here / kind / "saved_model.pb").stat().st_size / 1e6
        return {"graph_mb": graph, "disk_mb": megabytes(here / kind)}

    return step


def ask(here: Path, given: Given, kind: str) -> Step:
    """Load the version and ask it."""
    import scale_version

    from reshelve.examples.tokens import HISTORY_SEPARATOR

    texts = read_shop(here).questions
    if kind == "next_item":
        texts = histories(read_titles(here), len(texts), HISTORY_SEPARATOR, given.seed)

    def step() -> Found:
        figures, answers = scale_version.measure(here / kind, texts, given.threads, given.rounds)
        (here / f"{kind}.json").write_text(json.dumps(answers))
        return dict(figures)

    return step


def exhaustive(here: Path, given: Given) -> Step:
    """The best of all items for each question."""
    import scale_internals
    from scale_reference import Exhaustive, best

    everything = Exhaustive(scale_internals.read_memory(here / "tables"))
    weights = scale_internals.read_blend(given.blend)
    asked = scale_internals.cut(read_shop(here).questions)

    def step() -> Found:
        places = [best(everything.scores(asked, query, weights), TOP) for query in range(len(asked.keys))]
        np.save(here / "exhaustive.npy", np.stack(places))
        return {"questions": len(places)}

    return step


def recall(here: Path, given: Given) -> Step:
    """What of the exhaustive answer the version gives, and how often what was meant is among the first ten."""
    drawn, wanted = read_shop(here), np.load(here / "exhaustive.npy")

    def step() -> Found:
        answers = json.loads((here / "search.json").read_text())
        found = [[int(item.removeprefix("sku-")) for item in answer] for answer in answers]
        return shares(found, wanted, drawn.meant)

    return step


def megabytes(directory: Path) -> float:
    """Of all files below."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6
