"""The questions that checks and verdicts read of the held-out slice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.heldout import read_questions


@pytest.mark.parametrize(("accepted", "read"), [({"b1"}, ["q1"]), (set(), ["q0", "q1", "q2"])])
def test_where_no_cluster_is_accepted_all_are(tmp_path: Path, accepted: set[str], read: list[str]) -> None:
    rows = [{"text": f"q{n}", "candidates": ["i"], "cluster": f"b{n}"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "holdout.parquet")
    catalogue = PackagedCatalogue(items=["i"], titles=["t"], events=[1])
    found = read_questions(tmp_path, catalogue, 10, lambda cluster: cluster in accepted)
    assert [question.text for question in found] == read
