"""What a verb reads and writes, by names that join the nights of a ranker to one chain."""

from __future__ import annotations

from typing import Any

import pytest

from reshelve.tracking.datasets import lineage_of

RUN = "recommend/2011-08-30/1a2b3c4d5e6f"
ASKED = {"ranker": "recommend", "partition": "2011-08-30", "set": ["training.epochs=1"]}
NIGHT: list[tuple[str, dict[str, Any]]] = [
    ("examples", {"run": RUN, "source": "retail", "train": 900, "rows_read": 3000}),
    ("tune tell", {"run": RUN}),
    ("train", {"run": RUN}),
    ("compress", {"run": RUN}),
    ("package", {"run": RUN, "bytes": 1_500_000}),
    ("gate", {"run": RUN, "verdict": "promote"}),
    ("publish", {"run": RUN, "published": True, "version": 20110830001, "verdict": "promote"}),
]


def test_a_night_is_one_chain_from_the_clickstream_to_what_serves() -> None:
    validated = lineage_of(
        "validate", {"source": "retail", "partition": "2011-08-30"}, {"rows_in": 1000, "rows_good": 993}
    )
    assert [(each.name, each.version, each.rows) for each in validated.inputs] == [
        ("clickstream/retail", "2011-08-30", 1000)
    ]
    written = {each.name for each in validated.outputs}
    for verb, result in NIGHT:
        found = lineage_of(verb, ASKED, result)
        assert {each.name for each in found.inputs} <= written, f"{verb} reads what something wrote"
        assert found.outputs, verb
        written |= {each.name for each in found.outputs}
    released = lineage_of(
        "release", {"ranker": "recommend", "version": 20110830001}, {"version": 20110830001}
    )
    assert {each.name for each in released.inputs} <= written


def test_datasets_say_their_version_and_size() -> None:
    (made,) = lineage_of(*("package", ASKED, dict(NIGHT)["package"])).outputs
    assert (made.name, made.version, made.bytes) == ("runs/recommend/package", RUN, 1_500_000)
    (model,) = lineage_of("publish", ASKED, dict(NIGHT)["publish"]).outputs
    assert (model.name, model.version) == ("models/recommend", "20110830001")


def test_what_was_not_written_is_no_output() -> None:
    assert not lineage_of("publish", ASKED, {"run": RUN, "published": False, "version": None}).outputs
    assert not lineage_of("housekeeping", {}, {}).outputs


def test_only_names_and_verdicts_are_told() -> None:
    result = {
        "run": RUN,
        "verdict": "hold",
        "version": 3,
        "reasons": ["x"],
        "history": [{"query": "a person's"}],
    }
    assert dict(lineage_of("gate", ASKED, result).facts) == {"run": RUN, "verdict": "hold", "version": 3}


@pytest.mark.parametrize("verb", ["examples", "train", "validate", "release", "gate", "land"])
def test_a_verb_that_failed_has_a_lineage_too(verb: str) -> None:
    lineage_of(verb, {**ASKED, "source": "retail"}, {})
