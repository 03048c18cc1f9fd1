"""The deployment of `careful` on the running platform, for tests of what people decide about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.airflow.platform_here import CAREFUL, AirflowHere
from tests.airflow.test_security import Answer, Person
from tests.deployed import put_version

from reshelve.deployments.deployment_log import (
    Advance,
    Change,
    Offer,
    Pointer,
    Promote,
    Withdraw,
    move_pointer,
    read_pointer,
)
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.settings import settings
from reshelve.store.keys import make

ONE, TWO, THREE = 20110828001, 20110829001, 20110830001
UNSERVED = "ads"  # no agent reports of it: whoever has moved its pointer waits for one
DAGS = tuple(f"{verb}_{CAREFUL}" for verb in ("release", "approve", "withdraw", "rollback"))


def eventually(what: str, found: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)
    return answer


class Shelf:
    """The deployment of `careful` on the running platform. Its agent is a report that is written anew all the time."""

    def __init__(self, here: AirflowHere) -> None:
        self.here, self.store = here, here.store
        self._over = threading.Event()
        self._agent = threading.Thread(target=self._report)
        self._agent.start()

    def close(self) -> None:
        self._over.set()
        self._agent.join()

    def _report(self) -> None:
        while not self._over.wait(1):
            pointer = self.pointer
            serving = Serving(stable=pointer.stable, available=(ONE, TWO, THREE))
            report = Report(
                agent="a", server="127.0.0.1:1", at=datetime.now(UTC), sequence=999, serving=serving
            )
            write_report(self.store, CAREFUL, report)

    @property
    def pointer(self) -> Pointer:
        return read_pointer(self.store, CAREFUL) or Pointer(ranker=CAREFUL)

    def move(self, change: Change, by: str = "night") -> Pointer:
        return move_pointer(self.store, CAREFUL, change, by=by, reason=f"{by} said so")

    def load(self, version: int, *, approval: bool, not_by: str = "") -> Pointer:
        """A release up to where it waits for a person, or is ready; `not_by`: who requested it and may not approve it."""
        self.move(Offer(version, Plan(approval=approval, another_person=bool(not_by), requested_by=not_by)))
        self.move(Advance(version, Event.LOADED, ReleaseState.LOADING))
        return self.move(Advance(version, Event.PROBED, ReleaseState.PROBING))

    def waiting_run(self, version: int) -> dict[str, Any]:
        """A run of the release DAG that asks a person about a version, and may be answered.

        Airflow 3.3.2 fails a task whose answer comes before its scheduler has heard that the asking process ended; its
        retry asks anew, and the answer is lost. Nobody reads a question that fast, and the page waits.
        """
        run = self.here.trigger(f"release_{CAREFUL}", conf={"version": version})
        self.waits_again(run)
        return run

    def waits_again(self, run: dict[str, Any], tries: int = 1) -> None:
        """Until a run asks a person, for the time `tries`, and may be answered."""
        eventually("the question", lambda: self.here.tasks(run).get("approval") == "awaiting_input")
        heard = f"state success for task instance TaskInstanceKey(dag_id='{run['dag_id']}', task_id='approval', run_id='{run['dag_run_id']}', try_number={tries}"
        eventually("the scheduler has heard", lambda: heard in self.here.log("scheduler"))

    def runs(self) -> dict[str, int]:
        return {dag: len(self.here.runs(dag)) for dag in DAGS}

    def run(self, dag: str, state: str) -> dict[str, Any]:
        """The newest run of a DAG, once it is in this state."""
        newest = max(self.here.runs(dag), key=lambda run: run["run_after"])
        eventually(f"{dag} is {state}", lambda: self._state(newest) == state)
        return newest

    def _state(self, run: dict[str, Any]) -> str:
        return next(r["state"] for r in self.here.runs(run["dag_id"]) if r["dag_run_id"] == run["dag_run_id"])


def published_on(airflow_here: AirflowHere) -> None:
    """Three signed versions, with the keys of this platform."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESHELVE_HOME", airflow_here.environment["RESHELVE_HOME"])
        settings.cache_clear()
        make(if_missing=True)
        for ranker in (CAREFUL, UNSERVED):
            for version in (ONE, TWO, THREE):
                put_version(airflow_here.store, ranker, version)
    settings.cache_clear()


@contextmanager
def shelf_on(here: AirflowHere) -> Iterator[Shelf]:
    """One and then two are stable, and nothing is being released. RESHELVE_HOME is the platform's."""
    settings.cache_clear()
    made = Shelf(here)
    try:
        if made.pointer.canary is not None:
            made.move(Withdraw(made.pointer.canary))
        for version in (ONE, TWO):
            if made.pointer.stable != version:
                made.load(version, approval=False)
                made.move(Promote(version))
        yield made
    finally:
        made.close()
        settings.cache_clear()


def press(person: Person, token: str, action: str, **fields: Any) -> Answer:
    form = {name: str(value) for name, value in fields.items()}
    return person.post(f"/releases/{CAREFUL}/{action}", {"token": token, "reason": "a click", **form})
