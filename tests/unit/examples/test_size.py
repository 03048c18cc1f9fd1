"""A version that cannot be written is refused before anything is made of its catalogue."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from reshelve.errors import EXIT_CONFIGURATION, EXIT_TRY_AGAIN, ConfigurationError, TryAgainError
from reshelve.examples import size
from reshelve.examples.build import build_examples
from reshelve.kinds.search.examples import SearchExamples
from reshelve.kinds.search.size import of_texts
from reshelve.model.description import Architecture, ModelForm
from reshelve.model.graph_size import MOST_BYTES, GraphSize, GraphTables, texts_bytes

EACH = 45_000  # bytes of a product in the graph
FIT, ITEMS = 40_000, 48_000


@pytest.fixture
def large_shop(trading_shop, monkeypatch: pytest.MonkeyPatch):
    """A shop of 48,000 products, of a kind whose tables are constants of the graph."""
    monkeypatch.setattr(
        SearchExamples, "tables", lambda _, work: GraphTables(EACH * len(work.catalogue), in_graph=True)
    )
    trading_shop.products({f"listed{number}": f"cup {number}" for number in range(ITEMS)})
    return trading_shop


def test_too_many_products_are_refused_with_numbers(large_shop, day_of) -> None:
    run = large_shop.run("search", day_of(5))
    with pytest.raises(ConfigurationError) as refused:
        build_examples(run)
    assert refused.value.exit_code == EXIT_CONFIGURATION
    said, advised = refused.value.headline, refused.value.detail
    assert re.match(
        r"ranker shelf: 48,020 products make a version whose graph has at least 2\.2 GB, and 2\.1 GB", said
    )
    assert "data.catalogue_days (now 28), data.exclude, a shorter product list" in advised
    assert re.match(r"expected at most some 4[5-7],\d{3} products like these", advised)
    assert not (run.stage("examples").directory / "train.parquet").exists()


def test_what_fits_is_told_and_a_warning_where_it_is_near(large_shop, day_of) -> None:
    large_shop.products({f"listed{number}": f"cup {number}" for number in range(FIT)})
    with capture_logs() as near:
        found = build_examples(large_shop.run("search", day_of(5)))
    assert found["items"] == FIT + 20 and found["items"] < found["items_that_fit"] < ITEMS
    assert [line["most_gigabytes"] for line in near if line["log_level"] == "warning"] == ["2.1"]


def test_products_do_not_fill_the_graph_of_next_item(trading_shop, day_of) -> None:
    found = build_examples(trading_shop.run("next_item", day_of(5)))
    assert found["served_bytes"] < found["version_bytes"] and "items_that_fit" not in found


def test_a_base_that_fills_a_graph_by_itself_is_refused(trading_shop, day_of, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    shutil.copytree(trading_shop.base, wide)
    config = json.loads((wide / "config.json").read_text())
    config |= {"hidden_size": 20_480, "num_attention_heads": 64, "num_hidden_layers": 1}
    (wide / "config.json").write_text(json.dumps(config))
    trading_shop.base = wide
    with pytest.raises(ConfigurationError, match="graph has at least") as refused:
        build_examples(trading_shop.run("next_item", day_of(5)))
    assert "model.base with a smaller vocabulary or hidden_size" in refused.value.detail


class Usage(NamedTuple):
    """Of a disk."""

    free: int


def test_a_disk_without_room_for_the_versions_is_told_with_numbers(
    trading_shop, day_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trading_shop.run("next_item", day_of(5))
    found = build_examples(run)
    need = found["version_bytes"] + (found["served_bytes"] if run.ranker.compression.steps else 0)
    monkeypatch.setattr(size.shutil, "disk_usage", lambda _: Usage(need))
    build_examples(trading_shop.run("next_item", day_of(5)))
    monkeypatch.setattr(size.shutil, "disk_usage", lambda _: Usage(need - 1))
    with pytest.raises(
        TryAgainError, match=r"products make versions of 0\.\d GB, and the disk of .* has"
    ) as full:
        build_examples(trading_shop.run("next_item", day_of(5)))
    assert full.value.exit_code == EXIT_TRY_AGAIN


def test_a_pair_ranker_has_no_such_limit(trading_shop, day_of) -> None:
    assert "version_bytes" not in build_examples(trading_shop.run("pair", day_of(5)))


SIZES = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
}


def sized(kind: str, items: int, tables: GraphTables, tokenizer: Path) -> GraphSize:
    shape = Architecture(**SIZES)
    form = ModelForm(kind=kind, pooling="mean", max_length=64, architecture=shape, items=items)
    return GraphSize.of(form, tokenizer, tables, "int8")


def test_what_was_measured_to_work_is_not_refused(small_base: Path) -> None:
    """MiniLM with titles of 180 n-grams: 300,000 products of search; a million of next_item in 3.3 GB, 0.9 GB rounded."""
    said = "red paper lantern wooden heart garden gnome retro bag jumbo strawberry candle holder mug star glass tin"
    words = said.split()
    titles = [" ".join(words[(n * k + n // k) % len(words)] for k in range(1, 10)) for n in range(3_000)]
    ids = [f"{number:07}" for number in range(len(titles))]
    hundredth = of_texts(ids, titles, titles, [], narrowed=True)
    search = replace(hundredth, catalogue=100 * hundredth.catalogue)
    found = sized("search", 300_000, search, small_base / "tokenizer.json")
    assert found.least < MOST_BYTES
    next_item = GraphTables(333 * (texts_bytes(ids) + texts_bytes(titles)))
    found = sized("next_item", 1_000_000, next_item, small_base / "tokenizer.json")
    assert found.most < 0.1 * MOST_BYTES and found.items == 0
    assert 3.0e9 < found.version < 3.4e9 and found.served < found.version / 3


def test_titles_too_many_to_number_their_n_grams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reshelve.kinds.search.size.MOST_POSTINGS", 50)
    with pytest.raises(ConfigurationError, match=r"the titles of 2 products have [0-9]+ n-grams") as refused:
        of_texts(["1", "2"], ["", ""], ["red paper lantern", "garden gnome"], [], narrowed=False)
    assert "data.catalogue_days" in refused.value.detail
    of_texts(["1", "2"], ["", ""], ["red", "gnome"], [], narrowed=False)
