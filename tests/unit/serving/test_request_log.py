"""The sample of requests: no personal data, no waiting, bounded memory, clicks that join."""

from __future__ import annotations

import io
import socket
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.masks import mask
from reshelve.clickstream.privacy import protect, pseudonym, pseudonym_keys
from reshelve.client import request_log
from reshelve.client.request_log import RequestLog, requests_prefix, sampled
from reshelve.client.routing import _sent
from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError
from reshelve.pipeline.personal_data import BUCKET, REQUESTS, held_as
from reshelve.rollout.recorded import logged_requests
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, impatient_store

SECRETS = "2011-01-01:the-first-secret-of-the-shop,2011-08-30:the-second-secret-of-it"
ANSWER = {"item": np.array([[b"i2", b"i1", b"i3"]], dtype=object), "score": np.array([[0.2, 0.5, 0.1]])}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESHELVE_PSEUDONYM_KEYS", SECRETS)
    settings.cache_clear()


def offer(log: RequestLog, session: str, text: str = "red mug") -> None:
    log.offer(
        session=session, label="stable", signature="serving_default", text=text, version=7, outputs=ANSWER,
        move=4, meant=8,
    )  # fmt: skip


def rows_of(store: ObjectStore, ranker: str = "recommend") -> list[dict[str, Any]]:
    parts = [store.get(key) for key, _ in store.list(requests_prefix(ranker, datetime.now(UTC).date()))]
    return [
        row for part in parts if part is not None for row in pq.read_table(io.BytesIO(part.body)).to_pylist()
    ]


@pytest.mark.parametrize("day", [date(2011, 5, 1), date(2011, 8, 30), date(2010, 1, 1)])
@pytest.mark.parametrize(
    "typed", ["red mug", "anna.b@example.org mug", "call 555 123-4567", "5000 1122 3344 5566"]
)
def test_ids_and_queries_are_protected_as_those_of_the_clickstream(keys: None, day: date, typed: str) -> None:
    with duckdb.connect() as db:
        db.execute("CREATE TABLE events (user_id VARCHAR, session_id VARCHAR, query VARCHAR, day DATE)")
        db.execute("INSERT INTO events VALUES ('u', 'visit 17', ?, ?)", [typed, day])
        protect(db)
        (session, query) = db.execute("SELECT session_id, query FROM events").fetchone()  # type: ignore[misc]
    assert (pseudonym("visit 17", pseudonym_keys(), day), mask(typed)) == (session, query)


def test_what_is_kept_of_a_request(keys: None, store: ObjectStore) -> None:
    log = RequestLog(store, "recommend", "shop", 1.0)
    offer(log, "visit 17", "gift for anna.b@example.org")
    log.close()
    (row,) = rows_of(store)
    assert row["session"] == pseudonym("visit 17", pseudonym_keys(), datetime.now(UTC).date())
    assert (row["text"], row["version"], row["items"]) == ("gift for <e-mail>", 7, ["i1", "i2", "i3"])
    assert (row["move"], row["meant"]) == (4, 8), "which version the session was to get, whichever answered"
    assert row["scores"] == pytest.approx([0.5, 0.2, 0.1]) and row["spread"] == pytest.approx(0.4)
    (part,) = [store.get(key) for key, _ in store.list("requests/")]
    assert part is not None and b"visit 17" not in part.body and b"anna" not in part.body
    (key,) = (key for key, _ in store.list("requests/"))
    assert held_as(key, BUCKET) is REQUESTS and REQUESTS.personal, "it tells of people, and the list says so"


def test_what_a_caller_sent_is_what_a_pair_s_scores_are_of(keys: None, store: ObjectStore) -> None:
    log = RequestLog(store, "ads", "shop", 1.0)
    scores = {"score": np.array([0.2, 0.9, 0.4])}
    for queries in (["mug"], ["mug"] * 3, ["mug", "cup", "jug"], []):
        sent = _sent({"query": queries, "item": ["a1", "a2", "a3"]})
        log.offer(
            session="visit 17", label="stable", signature="serving_default", text="mug", version=7,
            outputs=scores, sent=sent,
        )  # fmt: skip
    log.close()
    found = rows_of(store, "ads")
    assert [row["items"] for row in found] == [["a2", "a3", "a1"]] * 2 + [[]] * 2
    assert found[0]["scores"] == pytest.approx([0.9, 0.4, 0.2])
    assert _sent({"history": ["mug"]}) is None


def test_whole_sessions_are_sampled(keys: None, store: ObjectStore) -> None:
    log = RequestLog(store, "recommend", "shop", 0.2)
    for number in range(500):
        for _ in range(2):
            offer(log, f"visit {number}")
    log.close()
    found = [row["session"] for row in rows_of(store)]
    assert len(found) == 2 * len(set(found)) == 2 * sum(sampled(f"visit {n}", 0.2) for n in range(500))
    assert 60 < len(set(found)) < 140


def test_no_key_no_log(store: ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match="needs a key"):
        RequestLog(store, "recommend", "shop", 0.1)


def test_memory_is_bounded_and_nobody_waits_while_the_store_hangs(
    keys: None, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_MOST_ROWS", 100)
    monkeypatch.setattr(request_log, "_PART_ROWS", 10)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        log = RequestLog(impatient_store(), "recommend", "shop", 1.0)
        for number in range(10):
            offer(log, f"visit {number}")
        upload, _ = silent.accept()  # a part is being written, and gets no answer
        for number in range(1000):
            offer(log, f"visit {number}")
        assert (len(log._rows), log.dropped, log.written) == (100, 900, 0)
        upload.close()
    log.close()
    assert len(log._rows) <= 100 and log.dropped + len(log._rows) == 1010 and log.written == 0


def test_the_shadow_asks_what_customers_asked(keys: None, store: ObjectStore) -> None:
    ranker = Ranker.model_validate(
        {"name": "recommend", "title": "The next item", "kind": "next_item", "data": {"source": "retail"},
         "gates": {"metric": "recall@20"}}
    )  # fmt: skip
    assert logged_requests(store, ranker, 10) == []
    log = RequestLog(store, "recommend", "shop", 1.0)
    for number in range(20):
        offer(log, f"visit {number}", f"mug {number}")
    log.close()
    found = logged_requests(store, ranker, 10)
    assert len(found) == 10 and found[3].inputs["history"].tolist() == ["mug 3"]
    store.put(f"{requests_prefix('recommend', datetime.now(UTC).date())}z.parquet", b"damaged")
    assert logged_requests(store, ranker, 10) == []
