"""The report from answers alone, with every number worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reshelve.config.ranker import Ranker
from reshelve.errors import DataError
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.judgement import Evidence, judge
from reshelve.evaluation.metrics import Metric, reported
from reshelve.evaluation.scoring import RankedAnswers
from reshelve.evaluation.slices import Familiarity
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.pipeline.references import load_ranker

ITEMS = ["old", "fresh", "spare"]
# 30 customers want the old item and 40 the fresh one, under a query that is known and one that is not.
ASKED = [
    HoldoutQuery(str(n), "known" if n < 30 else "strange", ["old" if n < 30 else "fresh"], 1.0, str(n),
                 candidates=ITEMS)
    for n in range(70)
]  # fmt: skip
KNOWN = Familiarity(queries={"known": 0.0}, items={"old": 0.0, "spare": 0.9}, settled={"old", "spare"})
OLD_FIRST, FRESH_FIRST = ["old", "fresh", "spare"], ["fresh", "old", "spare"]


def answering(*lists: list[str]) -> RankedAnswers:
    return RankedAnswers(list(lists), [[0.5, 0.25, 0.25]] * len(lists), 0)


FRIEND_OF_THE_OLD = answering(*[OLD_FIRST] * 70)
FRIEND_OF_THE_NEW = answering(*[FRESH_FIRST] * 70)
FRIEND_OF_ALL = answering(*[OLD_FIRST] * 30, *[FRESH_FIRST] * 40)


def evidence(challenger: RankedAnswers, champion: RankedAnswers | None) -> Evidence:
    answers = {"challenger": challenger} | ({"champion": champion} if champion else {})
    return Evidence(
        held=HeldOut(ASKED, reported(Metric("recall", 1), whole_lists=True), seed=1),
        answers=answers,
        baselines={name: [["spare", "old", "fresh"]] * 70 for name in ("popularity", "bm25", "cooccurrence")},
        known=KNOWN,
        catalogue=Catalogue(ITEMS, ITEMS, [1] * 3, [1] * 3),
        champion=20110830001 if champion else None,
    )


def ranker(**gates) -> Ranker:
    return Ranker.model_validate(
        {"name": "shelf", "title": "A shelf", "kind": "pair", "data": {"source": "shop"},
         "gates": {"metric": "recall@1", **gates}}
    )  # fmt: skip


def test_the_first_night_is_judged_against_the_baselines_and_reports_its_slices():
    result = judge(ranker(), evidence(FRIEND_OF_ALL, None))
    assert (result["verdict"], result["champion"]) == ("promote", None)
    assert set(result["slices"]) == {
        "query/head",
        "query/seen",
        "query/unseen",
        "item/head",
        "item/tail",
        "item/new",
    }
    unseen = result["slices"]["query/unseen"]
    assert (unseen["queries"], unseen["clusters"], unseen["enough"]) == (40, 40, True)
    assert unseen["values"] == {"challenger": 1, "popularity": 0, "bm25": 0, "cooccurrence": 0}
    assert unseen["difference"] is None
    assert not [said for said in result["reasons"] if "slice" in said]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("beats", "verdict", "words"),
    [
        (["popularity"], "promote", "loses to cooccurrence (1.0000)"),
        (["popularity", "cooccurrence"], "reject", "no better than the baseline"),
    ],
    ids=["reported", "asked for"],
)
def test_who_loses_to_counts_is_told_so_and_held_back_where_they_are_asked_for(beats, verdict, words):
    found = evidence(FRIEND_OF_THE_OLD, None)
    counts = {**found.baselines, "cooccurrence": FRIEND_OF_ALL.ranked}
    result = judge(ranker(beats=beats), replace(found, baselines=counts))
    assert result["verdict"] == verdict
    said = [reason for reason in result["reasons"] if "cooccurrence" in reason]
    assert len(said) == 1 and words in said[0]
    assert not [reason for reason in result["reasons"] if "bm25" in reason], "nobody loses to that"


def test_the_ads_that_come_with_the_project_are_not_promoted_while_they_lose_to_counts():
    beats = load_ranker("ads").gates.beats
    found = evidence(FRIEND_OF_THE_OLD, None)
    for name in ("popularity", "bm25", "cooccurrence"):
        stronger = {**found.baselines, name: FRIEND_OF_ALL.ranked}
        assert judge(ranker(beats=beats), replace(found, baselines=stronger))["verdict"] == "reject"


def test_a_better_mean_does_not_pay_for_a_slice():
    champion, challenger = FRIEND_OF_THE_OLD, FRIEND_OF_THE_NEW
    paid = evidence(challenger, champion)
    result = judge(ranker(champion_tolerance=1.0), paid)
    assert result["champion"]["difference"] == pytest.approx(10 / 70)
    assert result["verdict"] == "reject"
    assert result["slices"]["item/head"]["difference"] == {"value": -1, "low": -1, "high": -1}
    assert [said.split(" is worse")[0] for said in result["reasons"] if "slice" in said] == [
        "slice item/head", "slice query/head", "slice query/seen",
    ]  # fmt: skip
    for gates in ({"slice_tolerance": None}, {"slice_queries": 31}, {"slice_tolerance": 1.0}):
        assert judge(ranker(champion_tolerance=1.0, **gates), paid)["verdict"] == "promote"


def test_a_challenger_that_is_better_everywhere_is_promoted():
    result = judge(ranker(), evidence(FRIEND_OF_ALL, FRIEND_OF_THE_OLD))
    assert result["verdict"] == "promote"
    assert (
        "no slice is significantly worse than the champion by more than 0.05 (6 checked)" in result["reasons"]
    )


def test_calibration_of_every_version_is_reported_and_held_to_its_bound():
    # The first of three is said to be right half of the time, and is always; the others a quarter, and never are.
    result = judge(ranker(), evidence(FRIEND_OF_ALL, FRIEND_OF_THE_NEW))
    calibration = result["calibration"]["challenger"]
    assert calibration["predictions"] == 210
    assert calibration["error"]["value"] == pytest.approx((0.5 + 0.25 + 0.25) / 3)
    assert calibration["auc"] == 1
    assert [(row["predictions"], row["observed"]) for row in calibration["reliability"]] == [
        (140, 0),
        (70, 1),
    ]
    # 40 of the champion's 70 firsts are right, and 30 of its 70 seconds.
    champion = result["calibration"]["champion"]
    assert [row["observed"] for row in champion["reliability"]] == pytest.approx([30 / 140, 40 / 70])

    strict = judge(ranker(max_calibration_error=0.1), evidence(FRIEND_OF_ALL, None))
    assert strict["verdict"] == "reject"
    assert any("not calibrated within 0.1" in said for said in strict["reasons"])
    lenient = judge(ranker(max_calibration_error=0.4), evidence(FRIEND_OF_ALL, None))
    assert lenient["verdict"] == "promote"


def test_lists_that_no_order_can_answer_better_are_counted_and_left_out():
    single = [
        HoldoutQuery(f"one {n}", "known", ["old"], 1.0, f"one {n}", candidates=["old"]) for n in range(30)
    ]
    held = HeldOut(ASKED + single, reported(Metric("auc"), whole_lists=True), seed=1)
    answers = RankedAnswers(
        [*FRIEND_OF_THE_OLD.ranked, *[["old"]] * 30], [*FRIEND_OF_THE_OLD.scores, *[[0.25]] * 30], 0
    )
    popular = [*[["spare", "old", "fresh"]] * 70, *[["old"]] * 30]
    asked = evidence(FRIEND_OF_THE_OLD, None)
    asked = replace(
        asked,
        held=held,
        answers={"challenger": answers},
        baselines=dict.fromkeys(("popularity", "bm25", "cooccurrence"), popular),
    )
    result = judge(ranker(metric="auc"), asked)
    # 30 lists are in perfect order, and of 40 the middle one of three is wanted; lists of one would give everybody a 1.
    assert result["challenger"]["value"] == pytest.approx((30 + 40 / 2) / 70)
    assert result["baselines"]["popularity"] == pytest.approx((30 / 2 + 0) / 70)
    assert (result["queries"], result["counted"], result["undefined"]["auc"]) == (100, 70, 30)
    # The rows of all lists together: the wanted ones have 0.5 (30), 0.25 (40) and 0.25 (30), the 140 others 0.5 (40) and 0.25 (100).
    pooled = result["pooled_auc"]["challenger"]
    assert pooled["value"] == pytest.approx((30 * (100 + 40 / 2) + 70 * 100 / 2) / (100 * 140))
    assert pooled["low"] < pooled["value"] < pooled["high"]
    json.dumps(result, allow_nan=False)


def test_a_metric_without_a_value_on_any_question_is_no_verdict():
    alike = [
        HoldoutQuery(str(n), "q", ITEMS, 1.0, str(n), candidates=ITEMS, gains=[1.0] * 3) for n in range(70)
    ]
    held = HeldOut(alike, [Metric("auc")], seed=1)
    with pytest.raises(DataError, match="auc has no value on any held-out question of shelf"):
        judge(ranker(metric="auc"), replace(evidence(FRIEND_OF_ALL, None), held=held))


def test_few_clusters_are_too_few_to_say():
    asked = [replace(query, cluster=str(int(query.query_id) % 9)) for query in ASKED]
    few = replace(evidence(FRIEND_OF_ALL, None), held=HeldOut(asked, [Metric("recall", 1)], seed=1))
    result = judge(ranker(), few)
    assert (result["verdict"], result["clusters"]) == ("hold", 9)
    assert any("too few to say: the questions come from 9 baskets" in said for said in result["reasons"])


def test_figures_name_their_questions():
    first, second = evidence(FRIEND_OF_ALL, None), evidence(FRIEND_OF_THE_OLD, None)
    other = HeldOut(ASKED[1:], [Metric("recall", 1)], seed=1)
    assert judge(ranker(), first)["question_set"] == judge(ranker(), second)["question_set"]
    assert other.digest != first.held.digest


def test_exposure_beside_what_was_chosen_and_what_there_is():
    found = judge(ranker(), evidence(FRIEND_OF_ALL, FRIEND_OF_THE_OLD))["exposure"]
    assert found["depth"] == 1
    assert found["shown"]["challenger"] == pytest.approx({"new": 40 / 70, "rare": 40 / 70, "coverage": 2 / 3})
    assert found["shown"]["champion"] == {"new": 0, "rare": 0, "coverage": pytest.approx(1 / 3)}
    assert found["shown"]["popularity"]["rare"] == 1
    assert found["chosen"]["new"] == pytest.approx(40 / 70)
    assert found["catalogue"] == pytest.approx({"items": 3, "new": 1 / 3, "rare": 2 / 3})


def test_a_champion_that_was_not_asked_leaves_the_slices_uncompared():
    uncompared = replace(evidence(FRIEND_OF_ALL, None), champion=20110831001)
    result = judge(ranker(), uncompared)
    assert result["verdict"] == "hold"
    assert all(found["difference"] is None for found in result["slices"].values())


def test_parity_between_groups_is_reported_where_the_ranker_file_names_one():
    found = evidence(FRIEND_OF_ALL, None)
    assert judge(ranker(), found)["fairness"] is None
    known = replace(KNOWN, categories={"old": "used", "fresh": "new"})
    result = judge(ranker(group="category"), replace(found, known=known))["fairness"]
    assert (result["group"], result["depth"]) == ("category", 1)
    # All that was wanted was shown: 30 of 70 times the used one, 40 of 70 times the new one, the spare one never.
    shown = result["rankers"]["challenger"]
    assert shown["selection"] == pytest.approx({"used": 30 / 70, "new": 40 / 70, "unknown": 0})
    assert shown["demographic_parity"] == pytest.approx(40 / 70)
    assert shown["equalized_odds"] == 0
    assert (result["least_queries"], shown["too_few"]) == (30, {"unknown": 0})
    strict = judge(ranker(group="category", group_queries=31), replace(found, known=known))["fairness"]
    assert strict["rankers"]["challenger"]["too_few"] == {"unknown": 0, "used": 30}
    assert strict["rankers"]["challenger"]["equalized_odds"] is None, "one group is compared with nothing"
