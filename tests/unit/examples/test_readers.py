"""The gate and the compression verdict never read the same question."""

from __future__ import annotations

from reshelve.config.ranker import Ranker
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.readers import for_compression, for_gate, to_draw


def ranker(**values) -> Ranker:
    document = {"name": "shelf", "title": "A shelf", "kind": "next_item", "data": {"source": "shop"},
                "gates": {"metric": "recall@5"}}  # fmt: skip
    return Ranker.model_validate(document).with_values(values)


ASKED = [HoldoutQuery(str(n), "q", ["a"], 1.0, f"basket {n // 4}") for n in range(4000)]


def test_clusters_are_dealt_whole_to_one_of_the_two():
    gate = {query.query_id for query in for_gate(ASKED, ranker())}
    compression = {query.query_id for query in ASKED if for_compression(query.cluster)}
    assert gate | compression == {query.query_id for query in ASKED} and not gate & compression
    assert 0.22 < len(compression) / len(ASKED) < 0.28
    clusters = [{query.cluster for query in ASKED if query.query_id in part} for part in (gate, compression)]
    assert not clusters[0] & clusters[1]


def test_where_none_would_be_left_to_the_gate_it_reads_all():
    few = [query for query in ASKED if for_compression(query.cluster)][:4]
    assert for_gate(few, ranker()) == few


def test_without_compression_steps_the_gate_reads_all_of_them():
    without = ranker(**{"compression.steps": []})
    assert for_gate(ASKED, without) == ASKED
    assert (to_draw(without), to_draw(ranker())) == (1000, 1334), "so that about 1,000 are left to the gate"
