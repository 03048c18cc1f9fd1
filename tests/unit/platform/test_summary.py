"""The summary of a night, from results as the stages write them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import put_state

from reshelve.deployments.deployment_log import Pointer
from reshelve.examples.formats import EVENTS, write_rows
from reshelve.lineage.run import Run
from reshelve.pipeline.references import load_ranker
from reshelve.platform.configuration import Machine
from reshelve.platform.summary import print_summary
from reshelve.processes import free_port
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

DAY = date(2011, 8, 30)
RESULTS: dict[str, dict[str, Any]] = {
    "examples": {"train": 8000, "validation": 60, "holdout": 55, "items": 2345},
    "tune": {"best": {"training.learning_rate": 4.2e-5, "model.pooling": "cls"}, "trials": 4},
    "train": {
        "steps": 250, "first_loss": 7.5, "loss": 6.1, "samples_per_second": 81.2, "processes": 1, "device": "cpu",
    },
    "package": {"bytes": 24_000_000, "precision": "int8"},
    "gate": {
        "verdict": "promote", "reasons": ["beats popularity"], "metric": "recall@20", "champion": None, "queries": 55,
        "challenger": {"value": 0.31, "low": 0.25, "high": 0.37}, "baselines": {"popularity": 0.05},
    },
    "publish": {"published": True, "version": 20110830001, "uri": "s3://reshelve/models/…", "verdict": "promote"},
}  # fmt: skip


@pytest.fixture
def run(store: ObjectStore) -> Run:
    made = Run.of(load_ranker("recommend"), DAY)
    for name, result in RESULTS.items():
        made.stage(name).commit({**result, "seconds": 12.3})
    return made


def shown(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    print_summary(run, Machine(tmp_path), seconds=300, following="make night RANKER=x PARTITION=2011-08-31")
    return " ".join(capsys.readouterr().out.split())


def test_before_anything_serves(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(run, tmp_path, capsys)
    assert "no version yet" in text
    for words in (
        "8,000 to train",
        "pooling cls, learning_rate 0.000042",
        "loss 7.500 → 6.100",
        "24.0 MB, int8",
    ):
        assert words in text
    assert "this version 0.3100 (0.2500 to 0.3700); popularity 0.0500; 55 held-out queries" in text
    assert "promote: beats popularity" in text
    assert "`make night RANKER=x PARTITION=2011-08-31` runs the following night" in text
    secrets = Machine(tmp_path).secrets
    assert str(tmp_path / "airflow" / "passwords.json") in text.replace(" ", "")
    assert not [password for password in secrets.passwords.values() if password in text]


def test_questions_that_the_gate_did_not_ask_are_accounted_for(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.stage("examples").commit({**RESULTS["examples"], "holdout": 74, "seconds": 1.0})
    assert "55 of 74 held-out queries; the others judged compression" in shown(run, tmp_path, capsys)


def test_two_versions_are_compared_with_an_interval(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    champion = {
        "version": 20110829001,
        "value": 0.30,
        "difference": 0.01,
        "difference_low": -0.02,
        "difference_high": 0.04,
    }
    run.stage("gate").commit({**RESULTS["gate"], "champion": champion, "seconds": 1.0})
    said = "serving version 20110829001 0.3000, on the same questions: +0.0100 (-0.0200 to +0.0400); popularity 0.0500"
    assert said in shown(run, tmp_path, capsys)


def test_rows_of_the_night_and_of_the_window(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, rows in ((DAY, 900), (date(2011, 8, 29), 1100)):
        verdict = {"verdict": "pass", "headline": "fine", "rows_in": rows, "rows_quarantined": 7}
        run.store.put_json(f"validated/retail/dt={day}/verdict.json", verdict)
    text = shown(run, tmp_path, capsys)
    assert "900 checked, 7 quarantined: fine" in text
    assert "2,000 checked, 14 quarantined in 2 partitions" in text


def test_what_the_agent_reports(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    put_state(run.store, Pointer(ranker="recommend", stable=20110830001, previous=20110829001))
    serving = Serving(stable=20110830001, available=(20110829001, 20110830001))
    report = Report(agent="local", server="127.0.0.1:8500", at=datetime.now(UTC), sequence=1, serving=serving)
    write_report(run.store, "recommend", report)
    questions = pa.table({"text": ["one thing"], "history_items": [["1"]]})
    pq.write_table(questions, run.stage("examples").directory / "holdout.parquet")
    text = shown(run, tmp_path, capsys)
    assert "version 20110830001; previous 20110829001" in text
    assert "127.0.0.1:8500 answers with 20110830001; loaded: 20110829001, 20110830001" in text


def test_the_question_that_it_shows_is_no_single_customers(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("RESHELVE_MODEL_SERVER", f"127.0.0.1:{free_port()}")  # nothing answers
    settings.cache_clear()
    run = Run.of(load_ranker("search"), DAY)
    for name, result in RESULTS.items():
        run.stage(name).commit({**result, "seconds": 12.3})
    put_state(store, Pointer(ranker="search", stable=20110830001))
    examples = run.stage("examples").directory
    own = {"text": ["anna huber birkenweg 7", "red cup"], "history_items": [["1"], ["1"]]}
    pq.write_table(pa.table(own), examples / "holdout.parquet")
    asked = [
        {"event_time": datetime(2011, 8, 1 + number % 5), "event_type": "click", "user_id": f"customer {number}",
         "session_id": f"visit {number}", "query": "red cup", "item_id": "1"}
        for number in range(20)
    ]  # fmt: skip
    write_rows(examples / "events.parquet", EVENTS, asked)
    text = shown(run, tmp_path, capsys)
    assert "red cup" in text and "birkenweg" not in text
