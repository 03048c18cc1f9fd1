"""The gRPC threads of a model server: how many calls run at once, and what a reload that waits holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import grpc
import pytest

from .calls import THREADS, Gate, refused

pytestmark = pytest.mark.slow

EXHAUSTED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
AT_ONCE = THREADS - 1  # one thread listens


def outcome(call: Callable[[], Any]) -> Any:
    """What a call came to: its code and text, or OK."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK


def is_refused(served: Any) -> bool:
    return bool(outcome(lambda: served.status("m")) == EXHAUSTED)


def held(served: Any, gate: Gate) -> Any:
    return served.prediction.Predict(
        served.request("m", {"path": str(gate.path)}, signature="held"), timeout=120
    )


def fill(served: Any, gate: Gate, pool: ThreadPoolExecutor, until: Any) -> list[Future[Any]]:
    """Twice as many calls as threads; returns when all are refused but those that wait at the gate.

    Work of a test before may hold a thread a little longer: those that are to wait come again until they are let in.
    """

    since: dict[int, float] = {}

    def held_at_last(number: int) -> Any:
        end = time.monotonic() + 60
        while True:
            since[number] = time.monotonic()
            found = outcome(lambda: held(served, gate))
            if found != EXHAUSTED or time.monotonic() > end:
                return found

    def all_wait() -> bool:
        """A refusal comes at once: who has no answer after two seconds waits at the gate."""
        now = time.monotonic()
        return len(since) == AT_ONCE and all(now - asked > 2 for asked in since.values())

    waiting = [pool.submit(held_at_last, number) for number in range(AT_ONCE)]
    until(all_wait, "the calls at the gate", 60)
    refused_ones = [pool.submit(outcome, lambda: held(served, gate)) for _ in range(2 * THREADS - AT_ONCE)]
    until(lambda: all(call.done() for call in refused_ones), "the refusals", 60)
    return [*waiting, *refused_ones]


def test_one_call_fewer_than_threads_runs_at_once(served: Any, gate: Gate, until: Any) -> None:
    with ThreadPoolExecutor(2 * THREADS) as pool:
        calls = fill(served, gate, pool, until)
        gate.open()
        outcomes = [call.result(60) for call in calls]
    assert outcomes.count(grpc.StatusCode.OK) == AT_ONCE
    assert outcomes.count(EXHAUSTED) == 2 * THREADS - AT_ONCE
    assert served.predict("m")[0] == 2


def test_the_work_of_a_call_ends_with_its_deadline(served: Any, until: Any) -> None:
    def turns_for_minutes() -> Any:
        request = served.request("m", {"x": [1e8]}, signature="slow")
        return served.prediction.Predict(request, timeout=1)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls = [pool.submit(outcome, turns_for_minutes) for _ in range(AT_ONCE)]
        assert {call.result(60)[0] for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    until(lambda: not is_refused(served), "its threads to be free again", 20)
    assert served.predict("m")[0] == 2


def test_calls_of_administration_are_refused_like_any_other(
    served: Any, listed: Any, two_versions: Path, gate: Gate, until: Any
) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2

    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "m"
    with ThreadPoolExecutor(2 * THREADS) as pool:
        calls = fill(served, gate, pool, until)
        try:
            assert outcome(lambda: served.status("m")) == EXHAUSTED
            assert outcome(lambda: served.prediction.GetModelMetadata(metadata, timeout=60)) == EXHAUSTED
            moved = {"m": listed(two_versions, labels={"stable": 2, "canary": 2})}
            assert outcome(lambda: served.reload(moved)) == EXHAUSTED
        finally:
            gate.open()
        wait(calls, 60)
    assert served.predict("m", label="stable")[0] == 1, "what was refused changed nothing"


def test_every_reload_that_waits_holds_a_thread(
    served: Any, listed: Any, saved_model: Any, two_versions: Path, tmp_path: Path, until: Any
) -> None:
    """One waits for a base path that is not there yet, the others, of another model, for the first."""
    late, other = tmp_path / "late", tmp_path / "other"
    saved_model(other / "1")
    first = {"m": listed(two_versions, labels={"stable": 2}), "late": listed(late)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reloads = [pool.submit(outcome, lambda: served.reload(first, timeout=120))]
        try:
            until(lambda: served.predict("m", label="stable")[0] == 2, "the first reload")
            others = {**first, "other": listed(other)}
            reloads += [
                pool.submit(outcome, lambda: served.reload(others, timeout=120)) for _ in range(AT_ONCE - 1)
            ]
            until(lambda: is_refused(served), "every thread held", 60)
            assert not any(reload.done() for reload in reloads)
        finally:
            saved_model(tmp_path / "ready" / "1")
            (tmp_path / "ready").rename(late)
        assert {reload.result(60) for reload in reloads} == {grpc.StatusCode.OK}
    assert (served.predict("late")[0], served.predict("other")[0]) == (1, 1)


def test_a_reload_waits_for_another_models_first_load(
    served: Any, listed: Any, saved_model: Any, two_versions: Path, tmp_path: Path, gate: Gate, until: Any
) -> None:
    gate.holds_the_load_of(saved_model(tmp_path / "slow" / "1"))
    slow = {"m": listed(two_versions, labels={"stable": 1}), "slow": listed(tmp_path / "slow")}
    first = threading.Thread(target=served.reload, args=(slow, 120))
    first.start()
    try:
        served.wait_for("slow", 1, "LOADING")
        rollback = {**slow, "m": listed(two_versions, labels={"stable": 2})}
        error = refused(lambda: served.reload(rollback, timeout=1))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert served.predict("m", label="stable")[0] == 1, "the server answers, and the label has not moved"
    finally:
        gate.open()
        first.join(60)
    until(lambda: served.predict("m", label="stable")[0] == 2, "the reload whose caller has gone")
    assert served.predict("slow")[0] == 1
