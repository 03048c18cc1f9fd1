"""The size that is foretold of a version, beside that of versions which are really packaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tests.searched import searched

from reshelve.clickstream.remember import EVERYTHING
from reshelve.compression.calibration import calibrate
from reshelve.examples.catalogue import Catalogue
from reshelve.export.batches import batches
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.layers import FloatLayers, Layers
from reshelve.export.module import RankerModule
from reshelve.export.precisions.registry import precision_named
from reshelve.export.version import size_of
from reshelve.features.behaviour import Rates
from reshelve.features.blend import HIDDEN, Blend
from reshelve.features.candidates import narrows
from reshelve.features.evidence import FEATURES
from reshelve.features.features import PairFeatures
from reshelve.features.tables import Corpus, Searches
from reshelve.kinds.next_item.examples import graph_tables
from reshelve.kinds.next_item.export import NextItemModule
from reshelve.kinds.pair.export import PairModule
from reshelve.kinds.search.blend_stage import BlendDocument
from reshelve.kinds.search.export import SearchModule
from reshelve.kinds.search.size import of_texts
from reshelve.model.graph_size import GraphSize
from reshelve.model.trained import TrainedModel

SIZES = (2_000, 6_000)
CANDIDATES = 1024  # so that of the two sizes one is looked at whole
TODAY = date(2011, 8, 30)
_SAID = (
    "red blue green paper glass lantern café mugs ヴィンテージ garden gnome wooden hearts metal star candle holder set vintage "
    "christmas bag jumbo strawberry retro 3 halo iii kit don't small plates cake tin party bunting herb marker"
)
WORDS = _SAID.split()


def catalogue(items: int) -> Catalogue:
    random = np.random.default_rng(items)
    titles = [" ".join(random.choice(WORDS, 8)) + f" no {number}" for number in range(items)]
    names = [[title.upper() + " old"] if number % 3 == 0 else [] for number, title in enumerate(titles)]
    ids = [f"sku-{number:07}" for number in range(items)]
    return Catalogue(ids, titles, [1] * items, [1] * items, names=names)


def searches(items: int) -> Searches:
    random = np.random.default_rng(7)
    asked = [" ".join(random.choice(WORDS, random.integers(1, 4))) for _ in range(2 * items)]
    chosen = random.integers(0, items, len(asked)).tolist()
    return searched(asked, chosen, [TODAY.toordinal() - 2] * len(asked), [1.0] * len(asked))


def write_blend(directory: Path, found: Catalogue, asked: Searches, encoder: bool) -> None:
    Corpus(asked, list(found.titles), EVERYTHING).tables(TODAY).write(directory)
    width = len(FEATURES) + encoder
    zeros, inner = np.zeros(width, np.float32), np.zeros(HIDDEN, np.float32)
    Blend(zeros, zeros + 1, zeros, np.zeros((width, HIDDEN), np.float32), inner, inner).write(
        directory / "blend.safetensors"
    )
    document = BlendDocument(encoder=encoder, features=(*FEATURES, "encoder") if encoder else FEATURES)
    (directory / "blend.json").write_text(document.model_dump_json())


@dataclass(frozen=True)
class Version:
    """One that was packaged: bytes of all its files and of its saved_model.pb, and what was foretold of them."""

    real: int
    graph: int
    size: GraphSize
    precision: str

    @property
    def foretold(self) -> int:
        """At its precision."""
        return self.size.version if self.precision == "float32" else self.size.served


@pytest.fixture(scope="module")
def versions(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]
) -> dict[str, Version]:
    """All of them, so that a figure that is off is seen beside the others."""

    def make(
        kind: str,
        items: int,
        *,
        precision: str = "float32",
        encoder: bool = True,
        repeat: bool = True,
        vector_size: int | None = None,
    ) -> Version:
        here = tmp_path_factory.mktemp(kind)
        found, asked = catalogue(items), searches(items)
        model = TrainedModel.load(write_model(here, kind, "mean", items, vector_size=vector_size))
        known = PackagedCatalogue(list(found.items), list(found.titles), list(found.events), found.names)
        layers, tokenizer = layers_of(model, precision), here / "tokenizer.json"
        module: RankerModule
        if kind == "search":
            write_blend(here, found, asked, encoder)
            chosen = dict.fromkeys(
                zip((asked.texts[n] for n in asked.text), asked.items.tolist(), strict=True)
            )
            narrowed = narrows(items, CANDIDATES)
            tables = of_texts(found.items, found.titles, found.titles, chosen, narrowed=narrowed)
            module = SearchModule(model, layers, tokenizer, known, 20, here, CANDIDATES)
        else:
            tables = graph_tables(found, repeat)
            module = NextItemModule(model, layers, tokenizer, known, 20, repeat)
        tf.saved_model.save(module, str(here / "version"), signatures=module.signatures)
        graph = (here / "version" / "saved_model.pb").stat().st_size
        size = GraphSize.of(model.document, tokenizer, tables, precision)
        return Version(size_of(here / "version"), graph, size, precision)

    few, many = SIZES
    return {
        "search": make("search", few), "search, larger": make("search", many),
        "search, int8": make("search", few, precision="int8"),
        "titles": make("search", few, vector_size=128), "titles, larger": make("search", many, vector_size=128),
        "titles, int8": make("search", few, precision="int8", vector_size=128),
        "search, the encoder aside": make("search", few, encoder=False),
        "next_item": make("next_item", few), "next_item, int8": make("next_item", few, precision="int8"),
        "new": make("next_item", few, repeat=False), "new, larger": make("next_item", many, repeat=False),
    }  # fmt: skip


def layers_of(model: TrainedModel, precision: str) -> Layers:
    if precision == "float32":
        return FloatLayers(model)
    rows = [([101, 2000 + number, 102], None) for number in range(8)]
    return precision_named(precision).usual(model, calibrate(model, batches(rows))).layers(model)


@pytest.mark.slow
def test_what_is_foretold_is_what_is_packaged(versions: dict[str, Version]) -> None:
    off = {
        name: (round(version.foretold / version.real, 4), version)
        for name, version in versions.items()
        if not version.real <= version.foretold <= 1.15 * version.real
    }
    assert not off


@pytest.mark.slow
def test_nothing_is_refused_but_for_what_is_really_there(versions: dict[str, Version]) -> None:
    more = {
        name: each
        for name, each in versions.items()
        if each.precision == "float32" and not each.size.least <= each.graph <= each.size.most
    }
    assert not more


@pytest.mark.slow
@pytest.mark.parametrize("name", ["search", "titles", "new"])
def test_each_further_item_adds_what_is_foretold(versions: dict[str, Version], name: str) -> None:
    """It decides what fits; the fixed parts must not hide it."""
    small, large = versions[name], versions[f"{name}, larger"]
    grown = (large.foretold - small.foretold) / (large.real - small.real)
    assert 0.999 <= grown <= 1.1, (small, large)


@pytest.mark.slow
def test_the_graph_of_next_item_does_not_grow_with_the_catalogue(versions: dict[str, Version]) -> None:
    """There is no largest catalogue: items, titles, names and weights are in the variables."""
    small, large = versions["new"], versions["new, larger"]
    assert abs(large.graph - small.graph) < 1_000
    assert large.real - small.real > (SIZES[1] - SIZES[0]) * 4 * 64, "the weights at least"


@pytest.mark.slow
def test_the_graph_of_pair_grows_neither_with_the_catalogue_nor_with_what_was_shown(
    tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    graphs = []
    for items in (20, 2_000):
        here = write_model(tmp_path / str(items), "pair", "cls", items)
        found = catalogue(items)
        known = PackagedCatalogue(list(found.items), list(found.titles), list(found.events))
        rates = Rates([f"item\x1f{item}" for item in known.items], np.ones((items, 3), np.float32))
        features = PairFeatures(("behaviour",), None, rates)
        model = TrainedModel.load(here)
        columns = {name: np.ones(shape, np.float32) for name, shape in beside(len(features.columns)).items()}
        document = model.document.model_copy(update={"features": features.columns})
        model = TrainedModel(document, {**model.tensors, **columns})
        module = PairModule(model, FloatLayers(model), here / "tokenizer.json", known, features)
        tf.saved_model.save(module, str(here / "version"), signatures=module.signatures)
        graphs.append((here / "version" / "saved_model.pb").stat().st_size)
    assert abs(graphs[1] - graphs[0]) < 1_000, graphs


def beside(features: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what a pair model has for its features."""
    return {
        "beside.mean": (features,), "beside.deviation": (features,), "beside.linear.weight": (1, features),
        "beside.hidden.weight": (HIDDEN, features), "beside.hidden.bias": (HIDDEN,), "beside.output.weight": (1, HIDDEN),
    }  # fmt: skip
