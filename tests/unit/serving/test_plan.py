"""The agent's judgement: tables of single steps, and a simulated server that any plan must bring home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.agent.server_plan import (
    Observed,
    VersionState,
    choose_loads,
    missing,
    must_reload,
    next_entry,
    removable,
    start_entry,
    wanted_labels,
)
from reshelve.deployments.deployment_log import Pointer
from reshelve.protocol.model_config import ModelEntry

BASE = Path("/models/recommend")
AVAILABLE, LOADING, END = VersionState.AVAILABLE, VersionState.LOADING, VersionState.END


def pointer(stable: int | None = None, previous: int | None = None, canary: int | None = None) -> Pointer:
    return Pointer(ranker="recommend", stable=stable, previous=previous, canary=canary)


def entry(versions: set[int], **labels: int) -> ModelEntry:
    return ModelEntry("recommend", BASE, frozenset(versions), labels)


@pytest.mark.parametrize(
    ("wanted", "observed", "local", "expected"),
    [
        pytest.param(
            pointer(1), Observed(), {1}, None, id="not loaded: the server is not told before its turn"
        ),
        pytest.param(pointer(1), Observed({1: LOADING}), {1}, entry({1}), id="still loading: no label"),
        pytest.param(pointer(1), Observed({1: AVAILABLE}), {1}, entry({1}, stable=1), id="available: label"),
        pytest.param(
            pointer(2, 1),
            Observed({1: AVAILABLE, 2: LOADING}, {"stable": 1}),
            {1, 2},
            entry({1, 2}, stable=1),
            id="the label waits for the new version",
        ),
        pytest.param(
            pointer(2, 1),
            Observed({1: AVAILABLE}, {"stable": 1}),
            {1},
            entry({1}, stable=1),
            id="the label waits for a copy",
        ),
        pytest.param(
            pointer(3, 2),
            Observed({1: AVAILABLE, 2: AVAILABLE, 3: AVAILABLE}, {"stable": 1}),
            {1, 2, 3},
            entry({1, 2, 3}, stable=3),
            id="the label moves while the old version stays",
        ),
        pytest.param(
            pointer(3, 2),
            Observed({1: AVAILABLE, 2: AVAILABLE, 3: AVAILABLE}, {"stable": 3}),
            {1, 2, 3},
            entry({2, 3}, stable=3),
            id="no label points at it any more: dropped",
        ),
        pytest.param(
            pointer(1, None, 2),
            Observed({1: AVAILABLE, 2: AVAILABLE}, {"stable": 1}),
            {1, 2},
            entry({1, 2}, stable=1, canary=2),
            id="a canary beside the stable one",
        ),
        pytest.param(
            pointer(1),
            Observed({1: AVAILABLE, 2: AVAILABLE}, {"stable": 1, "canary": 2}),
            {1, 2},
            entry({1, 2}, stable=1),
            id="a withdrawn canary loses its label first",
        ),
        pytest.param(
            pointer(1, None, 2),
            Observed({1: AVAILABLE, 2: END}, {"stable": 1}, {2: "bad"}),
            {1, 2},
            entry({1}, stable=1),
            id="a failed canary is left out, to be tried again when its time has come",
        ),
        pytest.param(
            pointer(1, 2),
            Observed({1: AVAILABLE, 2: AVAILABLE}, {"stable": 1}),
            {2},
            entry({2}),
            id="a version whose bytes do not verify is never listed, even where it serves",
        ),
        pytest.param(pointer(), Observed(), {1, 2}, None, id="nothing is wanted"),
    ],
)
def test_next_step(wanted: Pointer, observed: Observed, local: set[int], expected: ModelEntry | None) -> None:
    assert next_entry(wanted, observed, frozenset(local), BASE) == expected


def test_versions_whose_turn_it_is_are_listed_and_those_not_copied_or_not_wanted_are_not() -> None:
    told = frozenset({2, 3, 4})
    found = next_entry(pointer(1, None, 2), Observed({1: AVAILABLE}), frozenset({1, 2, 4}), BASE, told)
    assert found == entry({1, 2}, stable=1)
    assert next_entry(pointer(1), Observed(), frozenset(), BASE, frozenset({1})) is None


def test_what_is_missing_is_named_in_the_order_in_which_it_is_needed() -> None:
    assert missing(pointer(3, 2, 4), Observed({1: AVAILABLE}), frozenset({1, 2, 3, 4})) == [3, 2, 4]
    assert missing(pointer(3, 2, 4), Observed({3: LOADING, 2: END}), frozenset({2, 3, 4})) == [2, 4]


ADS = Pointer(ranker="ads", stable=7, previous=6)
RECOMMEND = pointer(2, 1, 3)


@pytest.mark.parametrize(
    ("candidates", "under_way", "suspects", "expected"),
    [
        pytest.param([(RECOMMEND, 3)], set(), set(), [("recommend", 3)], id="the only one"),
        pytest.param(
            [(RECOMMEND, 3), (RECOMMEND, 1), (ADS, 6)],
            set(),
            set(),
            [("ads", 6)],
            id="one at a time, ways back first",
        ),
        pytest.param([(RECOMMEND, 3)], {("ads", 6)}, set(), [], id="a canary waits for what loads"),
        pytest.param(
            [(RECOMMEND, 2)], {("ads", 6)}, set(), [("recommend", 2)], id="a stable version does not"
        ),
        pytest.param([(RECOMMEND, 2)], {("ads", 6), ("x", 1)}, set(), [], id="but a thread is left"),
        pytest.param(
            [(RECOMMEND, 2), (ADS, 7)],
            set(),
            set(),
            [("ads", 7), ("recommend", 2)],
            id="two stable ones at a start",
        ),
        pytest.param(
            [(RECOMMEND, 2), (ADS, 7)],
            set(),
            {("ads", 7), ("recommend", 2)},
            [("ads", 7)],
            id="suspects are tried alone",
        ),
        pytest.param([(RECOMMEND, 2)], {("ads", 7)}, {("ads", 7)}, [], id="nothing beside a suspect"),
    ],
)
def test_loads_are_begun_one_at_a_time(candidates: Any, under_way: Any, suspects: Any, expected: Any) -> None:
    assert choose_loads(candidates, under_way, suspects) == expected


@pytest.mark.parametrize(
    ("wanted", "proven", "expected"),
    [
        pytest.param(
            pointer(2, 1, 3), {1, 2, 3}, entry({1, 2}, stable=2), id="stable and the way back, no canary"
        ),
        pytest.param(pointer(2, 1), {1}, entry({1}, stable=1), id="the stable one never answered here"),
        pytest.param(pointer(2, 1), {3}, None, id="what is proven is not wanted any more"),
        pytest.param(pointer(2), set(), None, id="nothing was ever loaded here"),
        pytest.param(pointer(None, None, 3), {3}, None, id="a first canary serves nobody"),
    ],
)
def test_a_server_may_start_from_what_answered_here_and_is_wanted(
    wanted: Pointer, proven: set[int], expected: ModelEntry | None
) -> None:
    assert start_entry(wanted, frozenset(proven), BASE) == expected
    narrow = None if expected is None else entry({expected.labels["stable"]})
    assert start_entry(wanted, frozenset(proven), BASE, narrow=True) == narrow


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(Observed({1: AVAILABLE}, {"stable": 1}), False, id="as told"),
        pytest.param(Observed({1: LOADING}, {}), True, id="restarted: the label is gone"),
        pytest.param(Observed(), True, id="restarted: knows nothing"),
        pytest.param(
            Observed({1: AVAILABLE}, {"stable": 1, "canary": 1}), True, id="somebody else added a label"
        ),
    ],
)
def test_a_server_that_lost_what_it_was_told_is_told_again(observed: Observed, expected: bool) -> None:
    told = entry({1}, stable=1)
    assert must_reload(told, told, observed) is expected
    assert must_reload(None, None, observed) is False
    assert must_reload(told, None, observed) is True


def test_files_stay_while_anybody_may_read_them() -> None:
    """1 is stable, 2 unloads, 4 is listed, 6 was copied a moment ago; 3 has ended and nobody knows 5."""
    local = frozenset({1, 2, 3, 4, 5, 6})
    observed = Observed({1: AVAILABLE, 2: VersionState.UNLOADING, 3: END})
    assert removable(pointer(1, canary=6), observed, entry({1, 4}), local) == {3, 5}


class Server:
    """A model server after the rules of TensorFlow Serving: loads later, refuses labels of unloaded versions."""

    def __init__(self) -> None:
        self.states: dict[int, VersionState] = {}
        self.labels: dict[str, int] = {}

    def observe(self) -> Observed:
        return Observed(dict(self.states), dict(self.labels))

    def reload(self, told: ModelEntry | None, allow_new: bool = False) -> None:
        versions = told.versions if told else frozenset()
        labels = dict(told.labels) if told else {}
        for label, version in labels.items():
            assert self.states.get(version) is AVAILABLE or (allow_new and label not in self.labels), (
                "refused"
            )
        self.labels = labels
        for version in versions:
            if self.states.get(version) in (None, END):
                self.states[version] = LOADING
        for version in set(self.states) - versions:
            self.states[version] = END

    def load_one(self) -> None:
        for version, state in self.states.items():
            if state is LOADING:
                self.states[version] = AVAILABLE
                return

    def restart(self) -> None:
        self.states, self.labels = {}, {}


_versions = st.one_of(st.none(), st.integers(1, 4))


@st.composite
def pointers(draw: st.DrawFn) -> Pointer:
    stable, previous, canary = draw(_versions), draw(_versions), draw(_versions)
    previous = None if stable is None or previous == stable else previous
    return pointer(stable, previous, None if canary == stable else canary)


_events = st.lists(
    st.one_of(pointers(), st.sampled_from(["round", "load", "restart", "copy", "lose"])),
    min_size=1,
    max_size=30,
)


@given(_events)
def test_any_history_ends_at_the_pointer_and_stable_never_falls_out(events: list[Pointer | str]) -> None:
    server, wanted = Server(), pointer()
    local: set[int] = set()
    applied: ModelEntry | None = None

    def copy() -> None:
        missing = sorted(wanted.wanted - local)
        if missing:
            local.add(missing[0])

    def round_() -> None:
        nonlocal applied
        observed = server.observe()
        mine = frozenset(local)
        loads = choose_loads([(wanted, v) for v in missing(wanted, observed, mine)], observed.loading, set())
        told = next_entry(wanted, observed, mine, BASE, frozenset(v for _, v in loads))
        stable = observed.labels.get("stable")
        if must_reload(told, applied, observed):
            server.reload(told)
            applied = told
        if stable in observed.available & local and wanted.stable is not None:
            now = server.labels.get("stable")
            assert now is not None and server.states[now] is AVAILABLE
        gone = removable(wanted, server.observe(), applied, frozenset(local))
        assert not gone & wanted.wanted
        local.difference_update(gone)

    for event in events:
        if isinstance(event, Pointer):
            wanted = event
        elif event == "round":
            round_()
        elif event == "load":
            server.load_one()
        elif event == "restart":
            server.restart()
        elif event == "copy":
            copy()
        elif event == "lose" and local:
            lost = min(local)  # an agent that started again and found its bytes changed
            local.discard(lost)
    for _ in range(20):
        copy()
        round_()
        server.load_one()
    assert wanted.wanted <= server.observe().available
    assert server.labels == wanted_labels(wanted)
    assert server.observe().held <= wanted.wanted
    assert local == wanted.wanted
