"""What the latency of a trial is measured on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.pipeline.references import load_ranker
from reshelve.tuning.latency import measured_form


@pytest.mark.parametrize("kind", ["pair", "next_item"])
def test_the_measured_model_is_the_one_that_is_trained(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"item_id": ["a", "b"]}), tmp_path / "catalogue.parquet")
    ranker = load_ranker(
        "ads" if kind == "pair" else "recommend", {"model.layers": 1, "model.max_length": 16}
    )
    form = measured_form(ranker, tiny_base, tmp_path)
    assert (form.kind, form.max_length, form.architecture.num_hidden_layers) == (ranker.kind, 16, 1)
    paired = kind == "pair"
    assert bool(form.features) is paired is bool(ranker.examples.features), "its features were left out"
    assert form.items == (None if paired else 2)
