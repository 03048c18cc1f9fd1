"""Differential privacy: what one customer can change is bounded before anything is counted, and OpenDP's map says what it costs."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.config.ranker import Ranker
from reshelve.config.remember import Privacy, Remember
from reshelve.errors import ConfigurationError
from reshelve.examples.common_queries import common_queries
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.features.noisy_searches import (
    AGES,
    NO_AGE,
    NO_QUERY,
    Name,
    NoisyChoice,
    NoisyCorpus,
    counted,
    plain,
    searches_of,
    unit_of,
)
from reshelve.features.tables import Corpus, SearchTables
from reshelve.pipeline.references import load_ranker
from reshelve.statistics.noisy_counts import UNIT, NoisyCounts, is_installed

TODAY = date(2011, 8, 30)
INDEX = {"a": 0, "b": 1}
TITLES = ["red cup", "blue mug"]
NO_OPENDP = pytest.mark.skipif(
    not is_installed(),
    reason="the extra privacy is not installed: pip install -c constraints.txt -e '.[privacy]'",
)


def choice(customer: str | None, query: str, item: str, ago: int = 1, weight: float = 1.0) -> NoisyChoice:
    return NoisyChoice(customer, query, item, TODAY - timedelta(days=ago), weight)


CHOICE = st.builds(
    choice, st.sampled_from(["u", "v", "w", None]), st.sampled_from(["cup", "mug", "tea"]), st.sampled_from(["a", "b", "c"]),
    st.integers(-1, 40), st.sampled_from([1.0, 0.5, 0.0001]),
)  # fmt: skip


@given(st.lists(CHOICE, max_size=40), st.integers(1, 4))
def test_a_customer_changes_counts_by_no_more_than_is_said(choices: list[NoisyChoice], most: int) -> None:
    """Data sets that differ in all rows of one customer: distances L0, L2 and L∞ between their counts."""
    with_all = counted(choices, TODAY, most)
    for customer in ("u", "v", "w"):
        without = counted([one for one in choices if one.customer != customer], TODAY, most)
        changed = [abs(with_all.get(name, 0) - without.get(name, 0)) for name in {*with_all, *without}]
        changed = [change for change in changed if change]
        assert len(changed) <= 2 * most
        assert max(changed, default=0) <= UNIT
        assert math.sqrt(sum(change**2 for change in changed)) <= UNIT * math.sqrt(2 * most)


@given(st.lists(CHOICE, max_size=40), st.integers(1, 4))
def test_nobody_decides_what_is_counted_of_another(choices: list[NoisyChoice], most: int) -> None:
    """Counts are the sum of what each customer's own rows give; whoever is nobody gives nothing."""
    total: dict[Name, int] = {}
    for customer in ("u", "v", "w"):
        for name, count in counted([one for one in choices if one.customer == customer], TODAY, most).items():
            total[name] = total.get(name, 0) + count
    assert counted(choices, TODAY, most) == total


def test_the_newest_pairs_count_once_and_as_much_as_their_heaviest_label() -> None:
    asked = [choice("u", "cup", "a", 1, 0.5), choice("u", "cup", "a", 5), choice("u", "mug", "b", 9), choice("u", "tea", "a", 20)]  # fmt: skip
    pairs = {("cup", "a", NO_AGE): UNIT, ("mug", "b", NO_AGE): UNIT}
    assert counted(asked, TODAY, 2) == pairs | {(NO_QUERY, "a", 0): UNIT, (NO_QUERY, "b", 1): UNIT}
    before = counted(asked, TODAY - timedelta(days=10), 2)
    assert before == {("tea", "a", NO_AGE): UNIT, (NO_QUERY, "a", 1): UNIT}


def test_who_is_protected() -> None:
    assert unit_of("4711", "4711") == unit_of("4711", None) != unit_of(None, "4711")
    assert unit_of(None, None) is None and unit_of("", "") is None


def test_how_a_query_was_typed_is_not_counted() -> None:
    typed = ["Halo:  Reach", "halo reach", "HALO reach's"]
    assert set(plain(typed).values()) == {"halo reach"}
    assert plain(["?!", " ?! "]) == {"?!": "?!", " ?! ": "?!"}


def test_released_counts_become_searches() -> None:
    ages = {
        (NO_QUERY, "a", 0): 30.0,
        (NO_QUERY, "a", 2): 90.0,
        (NO_QUERY, "b", 1): 50.0,
        (NO_QUERY, "gone", 0): 70.0,
    }
    pairs = {("cup", "a", NO_AGE): 60.0, ("tea", "b", NO_AGE): 80.0, ("cup", "gone", NO_AGE): 70.0}
    found = searches_of(ages | pairs, INDEX, TODAY, 2.0)
    rows = sorted(
        zip((found.texts[n] for n in found.text), found.items.tolist(), found.weights.tolist(), strict=True)
    )
    # A pair has its item's ages; what is left of the item has no query.
    assert rows == [("", 0, 30.0), ("", 0, 90.0), ("cup", 0, 30.0), ("cup", 0, 90.0), ("tea", 1, 160.0)]
    tables = Corpus(found, TITLES, Remember(customers=1, days=1)).tables(TODAY)
    assert tables.keys == ["cup", "tea"]
    assert tables.popularity.argmax() == 0, "what has no query counts for popularity"
    assert (
        Corpus(searches_of({}, INDEX, TODAY, 1.0), TITLES, Remember(customers=1, days=1)).tables(TODAY).keys
        == []
    )
    assert len(AGES) == 3


def privacy(**values: Any) -> Remember:
    return Remember(privacy=Privacy.model_validate({"epsilon": 3.0, **values}))


def cost(scale: float, threshold: float, counts: int, delta: float) -> tuple[float, float]:
    """(ε, δ) by OpenDP's map of a measurement made anew, of what a customer can change who gives to so many counts."""
    import opendp.prelude as dp

    number = dp.atom_domain(T="i64")
    measurement = dp.m.make_gaussian_threshold(
        dp.map_domain(number, number), dp.l02inf_distance(dp.absolute_distance(T="i64")), scale * UNIT, round(threshold * UNIT)
    )  # fmt: skip
    distances = counts, math.ceil(UNIT * math.sqrt(counts)), UNIT
    return tuple(dp.c.make_fix_delta(dp.c.make_zCDP_to_approxDP(measurement), delta).map(distances))  # type: ignore[return-value]


@NO_OPENDP
@pytest.mark.parametrize(("epsilon", "delta", "counts"), [(3.0, 1e-6, 10), (8.0, 1e-6, 2), (0.5, 1e-9, 40), (100.0, 1e-4, 2)])  # fmt: skip
def test_opendps_map_gives_what_was_asked_for(epsilon: float, delta: float, counts: int) -> None:
    noisy = NoisyCounts(epsilon, delta, counts, least=3)
    assert cost(noisy.scale, noisy.threshold, counts, delta) == pytest.approx(noisy.spent)
    assert noisy.spent[1] == delta
    assert 0.98 * epsilon <= noisy.spent[0] <= epsilon, (
        "no more than was allowed, and no noise that buys nothing"
    )
    assert noisy.threshold >= 3


@NO_OPENDP
def test_noise_is_of_the_size_that_is_said_and_never_the_same() -> None:
    noisy = NoisyCounts(3.0, 1e-6, 10, least=3)
    true = {str(number): 200 * UNIT for number in range(2000)} | {
        str(number): UNIT for number in range(2000, 4000)
    }
    first, second = noisy.release(true), noisy.release(true)
    assert first.keys() == {str(number) for number in range(2000)}, (
        "a count of one does not reach the threshold"
    )
    values = np.array(list(first.values()))
    assert abs(values.mean() - 200) < 5 * noisy.scale / math.sqrt(2000)
    assert values.std() == pytest.approx(noisy.scale, rel=0.1)
    assert first != second


@NO_OPENDP
def test_tables_hold_what_many_asked_and_nothing_of_one() -> None:
    asked = [choice(f"user {number}", "red cup", "a", 1 + number % 20) for number in range(200)]
    asked += [
        choice("user anna", "anna huber birkenweg 7", "b", ago) for ago in range(1, 28) for _ in range(9)
    ]
    asked += [choice(None, "nobody knows who", "b", ago) for ago in range(1, 28) for _ in range(9)]
    corpus = NoisyCorpus(asked, INDEX, TITLES, privacy(), 1.0)
    tables = corpus.tables(TODAY)
    assert tables.keys == ["redcup"]
    assert set(tables.grams) == set(of_nothing().grams)
    assert tables.item[:, 5].tolist() == [0, 1], "never chosen, for all that it says of the second"
    assert tables.chosen.weights[0, 0] == pytest.approx(200, abs=8 * corpus.spent["noise"])
    spent = corpus.spent
    # To 5 pairs of query and item, and to 5 items by age, as counted by `counted`.
    assert cost(spent["noise"], spent["threshold"], 2 * 5, 1e-6) == pytest.approx(
        (spent["epsilon"], spent["delta"])
    )
    assert spent["epsilon"] <= 3.0 and spent["per_customer"] == 5
    assert corpus.tables(TODAY - timedelta(days=60)).keys == []


def of_nothing() -> SearchTables:
    return Corpus(searches_of({}, INDEX, TODAY, 1.0), TITLES, Remember(customers=1, days=1)).tables(TODAY)


def test_no_text_of_a_customer_is_shown_or_kept(tmp_path: Path) -> None:
    assert common_queries(tmp_path, privacy()) == [], "not even read"
    catalogue = PackagedCatalogue(["a", "b"], TITLES, [7, 5]).without_counts()
    assert catalogue.events == [0, 0] and catalogue.items == ["a", "b"]


def ranker(kind: str = "search", **remember: Any) -> Mapping[str, Any]:
    return {"name": "shop", "title": "The shop", "kind": kind, "data": {"source": "shop"}, "gates": {"metric": "mrr"},
            "remember": remember}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [("epsilon", 0), ("epsilon", 101), ("epsilon", "inf"), ("delta", 0), ("delta", 0.01), ("per_customer", 0),
     ("per_customer", 1.5), ("sigma", 1)],
)  # fmt: skip
def test_a_wrong_value_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"remember\.privacy\.{key}"):
        Ranker.model_validate(ranker(privacy={"epsilon": 3.0, key: value}))


@pytest.mark.parametrize("kind", ["next_item", "pair"])
def test_kinds_whose_counts_get_no_noise_are_refused(kind: str) -> None:
    Ranker.model_validate(ranker(kind))
    with pytest.raises(
        ValueError, match=rf"remember\.privacy\.epsilon\n.*what a {kind} ranker's versions hold gets no noise"
    ):
        Ranker.model_validate(ranker(kind, privacy={"epsilon": 3.0}))


def test_without_the_package_the_ranker_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp", None)
    assert load_ranker("search").remember.privacy.epsilon is None
    with pytest.raises(
        ConfigurationError, match=r"remember\.privacy\.epsilon: OpenDP is not installed"
    ) as refused:
        load_ranker("search", {"remember.privacy.epsilon": 3.0})
    assert ".[privacy]" in refused.value.detail and refused.value.exit_code == 78
    with pytest.raises(ConfigurationError, match="OpenDP is not installed"):
        NoisyCounts(3.0, 1e-6, 10, 3)
