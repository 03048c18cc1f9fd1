"""What travels with a version, what two versions' answers say, and which sessions are a canary's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.client.client import Answer
from reshelve.client.routing import Caller, meant_version, session_place, wants_canary
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import Plan, ReleaseState
from reshelve.errors import ConfigurationError, DataError
from reshelve.kind_registry import kind_of
from reshelve.protocol import messages
from reshelve.rollout import recorded
from reshelve.rollout.canary_analysis import StepOutcome
from reshelve.rollout.shadow import Compared, judge_shadow
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import describe_directory

VERSION = 20110830001


def record(text: str) -> bytes:
    log = messages.prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "serving_default"
    log.predict_log.request.inputs["history"].CopyFrom(messages.to_tensor([text]))
    body = log.SerializeToString()
    return len(body).to_bytes(8, "little") + bytes(4) + body + bytes(4)


def version_with(store: ObjectStore, tmp_path: Path, files: dict[str, bytes]) -> Manifest:
    for name, body in files.items():
        path = tmp_path / "version" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    store.upload_directory(tmp_path / "version", f"models/recommend/{VERSION}")
    return Manifest.model_validate(
        {
            "ranker": "recommend",
            "version": VERSION,
            "kind": "next_item",
            "created_at": "2011-08-31T03:00:00Z",
            "files": describe_directory(tmp_path / "version"),
            "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
            "gate": {"verdict": "promote"},
        }
    )


def test_recorded_requests_and_known_answers_are_read(store: ObjectStore, tmp_path: Path) -> None:
    known = {"signature": "serving_default", "inputs": {"history": ["mug"]}, "score": [[0.5, 0.25]]}
    files = {
        recorded.WARM_UP: record("red mug") + record("blue mug"),
        recorded.KNOWN_ANSWERS: json.dumps(known).encode(),
    }
    manifest = version_with(store, tmp_path, files)
    found = recorded.recorded_requests(store, manifest)
    assert [list(request.inputs["history"]) for request in found] == [["red mug"], ["blue mug"]]
    answers = recorded.known_answers(store, manifest)
    assert answers is not None and answers.score.tolist() == [[0.5, 0.25]]
    store.put(f"models/recommend/{VERSION}/{recorded.KNOWN_ANSWERS}", b"{}")
    with pytest.raises(DataError, match="does not match the manifest's digest"):
        recorded.known_answers(store, manifest)


@pytest.mark.parametrize("cut", [1, 5, 11, 20])
def test_a_warm_up_file_that_was_cut_off_is_bad_data(store: ObjectStore, tmp_path: Path, cut: int) -> None:
    manifest = version_with(store, tmp_path, {recorded.WARM_UP: record("red mug")[:-cut]})
    with pytest.raises(DataError, match="ends within a record"):
        recorded.recorded_requests(store, manifest)


def test_a_version_without_either_has_none(store: ObjectStore, tmp_path: Path) -> None:
    manifest = version_with(store, tmp_path, {"saved_model.pb": b"graph"})
    assert recorded.recorded_requests(store, manifest) == []
    assert recorded.known_answers(store, manifest) is None


def ranker(**values: Any) -> Ranker:
    document = {
        "name": "recommend",
        "title": "The next item",
        "kind": "next_item",
        "data": {"source": "retail"},
        "gates": {"metric": "recall@20"},
        "release": {"shadow": {"requests": 10, "min_agreement": 0.5}},
    }
    return Ranker.model_validate(document).with_values(values)


def compared(ratio: float, agreement: float = 0.9, refused: int = 0, spread: float = 0.1) -> Compared:
    times = np.random.default_rng(1).normal(np.log(ratio), spread, 40)
    return Compared(40, ["it refused"] * refused, [agreement] * 40, [float(x) for x in times])


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(compared(1.0), StepOutcome.PROMOTE, id="alike"),
        pytest.param(compared(1.0, refused=1), StepOutcome.ROLL_BACK, id="one request is refused"),
        pytest.param(compared(1.0, agreement=0.3), StepOutcome.ROLL_BACK, id="other answers"),
        pytest.param(compared(2.5), StepOutcome.ROLL_BACK, id="slower for sure"),
        pytest.param(compared(1.5, spread=0.6), StepOutcome.HOLD, id="who knows"),
        pytest.param(Compared(40), StepOutcome.HOLD, id="the stable version answered nothing"),
    ],
)
def test_a_shadow_is_judged(found: Compared, verdict: StepOutcome) -> None:
    judged = judge_shadow(found, ranker())
    assert judged.verdict is verdict, judged


def answer(**outputs: Any) -> Answer:
    return Answer(1, {name: np.array(value) for name, value in outputs.items()})


def test_agreement_is_what_two_orders_share() -> None:
    items = [f"i{n}" for n in range(20)]
    old, new = answer(item=[items]), answer(item=[items[5:] + items[:5]])
    assert kind_of("next_item").requests.agreement(old, old) == 1
    assert kind_of("next_item").requests.agreement(old, new) == 0.5
    assert kind_of("pair").requests.agreement(
        answer(score=[1.0, 2.0, 3.0]), answer(score=[0.1, 0.2, 0.9])
    ) == pytest.approx(1)
    assert kind_of("pair").requests.agreement(
        answer(score=[1.0, 2.0, 3.0]), answer(score=[3.0, 2.0, 1.0])
    ) == pytest.approx(-1)
    assert kind_of("pair").requests.agreement(answer(score=[1.0]), answer(score=[1.0])) is None
    ordered, flat = answer(score=[1.0, 2.0]), answer(score=[1.0, 1.0])
    assert kind_of("pair").requests.agreement(flat, ordered) is None, "there was no order to keep"
    assert kind_of("pair").requests.agreement(ordered, flat) == 0, "the order is lost"
    assert kind_of("next_item").requests.agreement(answer(item=[[]]), answer(item=[items])) is None


def pointer(share: float, canary: int = 2) -> Pointer:
    return Pointer(
        ranker="recommend", sequence=4, stable=1, canary=canary, share=share, state=ReleaseState.CANARY, step=1,
        plan=Plan(shares=(share,)),
    )  # fmt: skip


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=20), st.floats(0.01, 0.98), st.floats(0.001, 0.5))
def test_a_session_stays_while_the_share_grows(session: str, share: float, more: float) -> None:
    if wants_canary(pointer(share), session):
        assert wants_canary(pointer(min(0.99, share + more)), session)


def test_the_share_of_the_sessions_is_the_share_and_every_canary_has_others() -> None:
    sessions = [f"customer {n}" for n in range(20_000)]
    first = {s for s in sessions if wants_canary(pointer(0.05, 2), s)}
    second = {s for s in sessions if wants_canary(pointer(0.05, 3), s)}
    assert 0.044 < len(first) / len(sessions) < 0.056
    assert len(first & second) < 0.15 * len(first)
    assert all(0 <= session_place(s, "recommend", 2) < 1 for s in sessions[:100])


def test_what_a_session_is_to_get_is_known_before_anybody_answers() -> None:
    half = pointer(0.5)
    for session in (f"visit {n}" for n in range(50)):
        assert meant_version(half, session) == (half.canary if wants_canary(half, session) else half.stable)
    assert meant_version(None, "a") is None


def test_without_a_share_or_a_pointer_nobody_gets_the_canary() -> None:
    assert not wants_canary(None, "a")
    assert not wants_canary(Pointer(ranker="recommend", stable=1), "a")
    with pytest.raises(ConfigurationError, match="no model server"):
        Caller("recommend", [])
