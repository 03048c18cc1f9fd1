"""What ended a server is remembered for as long as the offer that asked for it stands, and no longer."""

from __future__ import annotations

from pathlib import Path

from reshelve.agent.load_watch import LoadWatch
from reshelve.agent.loads import Loads
from reshelve.agent.server_plan import Observed
from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState

ONE, TWO = 20110830001, 20110831001
COPY = ("recommend", TWO)
SERVES_ONE = {"recommend": Observed({}, {}, {}, True, False)}


def offered(sequence: int) -> dict[str, Pointer]:
    """The pointer while `TWO` is being loaded, by that move."""
    return {
        "recommend": Pointer(
            ranker="recommend", sequence=sequence, stable=ONE, canary=TWO, state=ReleaseState.LOADING
        )
    }


def after_a_death(models: Path) -> LoadWatch:
    """The server ended while it loaded `TWO`, which move 5 had offered, and came back without it."""
    (models / "recommend").mkdir()
    watch = LoadWatch(Loads(models))
    watch.begin([COPY])
    watch.server_is_away()
    watch.learn(SERVES_ONE, offered(5), False)
    return watch


def test_what_ended_the_server_is_not_tried_again_for_the_same_offer(tmp_path: Path) -> None:
    watch = after_a_death(tmp_path)
    watch.learn(SERVES_ONE, offered(5), False)
    assert watch.failing("recommend") == {TWO}
    assert "the model server ended" in watch.failures("recommend", SERVES_ONE["recommend"])[TWO]
    next_agent = LoadWatch(Loads(tmp_path))
    next_agent.start(["recommend"])
    next_agent.learn(SERVES_ONE, offered(5), False)
    assert next_agent.failing("recommend") == {TWO}


def test_a_version_that_is_offered_again_between_two_looks_is_tried_again(tmp_path: Path) -> None:
    """Withdrawn by move 6 and offered by move 7: this agent has not seen a pointer without it."""
    watch = after_a_death(tmp_path)
    watch.learn(SERVES_ONE, offered(7), False)
    assert watch.failing("recommend") == set()
    assert watch.failures("recommend", SERVES_ONE["recommend"]) == {}
    assert watch.choose(offered(7), SERVES_ONE, {"recommend": frozenset({ONE, TWO})}) != []
