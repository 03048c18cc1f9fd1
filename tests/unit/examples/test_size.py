"""A catalogue that no version can hold is refused before anything is made of it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reshelve.errors import EXIT_CONFIGURATION, ConfigurationError
from reshelve.examples.build import build_examples
from reshelve.kinds.search.size import of_texts
from reshelve.model.description import Architecture, ModelForm
from reshelve.model.graph_size import MOST_BYTES, GraphSize, GraphTables, texts_bytes

# Each product is 32 kB of weights, and the words are 0.5 GB.
WIDE = {"hidden_size": 4096, "num_attention_heads": 64, "num_hidden_layers": 1, "intermediate_size": 64}
FIT, ITEMS = 40_000, 48_000


@pytest.fixture
def wide_shop(trading_shop, tmp_path: Path):
    """A shop whose base is so wide that some thousand products fill a version, and who lists 48,000."""
    base = tmp_path / "wide"
    shutil.copytree(trading_shop.base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | WIDE))
    trading_shop.base = base
    trading_shop.products({f"listed{number}": f"cup {number}" for number in range(ITEMS)})
    return trading_shop


def test_too_many_products_are_refused_with_numbers(wide_shop, day_of) -> None:
    run = wide_shop.run("search", day_of(5))
    with pytest.raises(ConfigurationError) as refused:
        build_examples(run)
    assert refused.value.exit_code == EXIT_CONFIGURATION
    said, advised = refused.value.headline, refused.value.detail
    assert re.match(
        r"ranker shelf: 48,020 products make a version of at least 2\.[23] GB, and 2\.1 GB is the most", said
    )
    assert "data.catalogue_days (now 28), data.exclude, a shorter product list" in advised
    assert re.match(r"expected at most some 4[4-6],\d{3} products like these", advised)
    assert not (run.stage("examples").directory / "train.parquet").exists()


def test_what_fits_is_told_and_a_warning_where_it_is_near(wide_shop, day_of) -> None:
    wide_shop.products({f"listed{number}": f"cup {number}" for number in range(FIT)})
    with capture_logs() as near:
        found = build_examples(wide_shop.run("search", day_of(5)))
    assert found["items"] == FIT + 20 and found["items"] < found["items_that_fit"] < ITEMS
    assert [line["most_gigabytes"] for line in near if line["log_level"] == "warning"] == ["2.1"]
    with capture_logs() as far:  # the product list is none of next_item's
        few = build_examples(wide_shop.run("next_item", day_of(5)))
    assert few["items"] == 20 and few["served_bytes"] < few["graph_bytes"] < MOST_BYTES / 2
    assert not [line for line in far if line["log_level"] == "warning"]


def test_a_pair_ranker_has_no_such_limit(trading_shop, day_of) -> None:
    assert "graph_bytes" not in build_examples(trading_shop.run("pair", day_of(5)))


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
    """MiniLM with titles of 180 n-grams: 300,000 products of search, 660,000 of next_item."""
    said = "red paper lantern wooden heart garden gnome retro bag jumbo strawberry candle holder mug star glass tin"
    words = said.split()
    titles = [" ".join(words[(n * k + n // k) % len(words)] for k in range(1, 10)) for n in range(3_000)]
    ids = [f"{number:07}" for number in range(len(titles))]
    hundredth = of_texts(ids, titles, titles, [])
    search = replace(hundredth, catalogue=100 * hundredth.catalogue)
    found = sized("search", 300_000, search, small_base / "tokenizer.json")
    assert 0.8 * MOST_BYTES < found.least < MOST_BYTES
    next_item = GraphTables(220 * (texts_bytes(ids) + texts_bytes(titles)))
    found = sized("next_item", 660_000, next_item, small_base / "tokenizer.json")
    assert 0.8 * MOST_BYTES < found.least < MOST_BYTES
    assert found.served < found.most / 3
