"""A verdict that is made again: after late files, after a release from quarantine, after a killed pass."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.store.objects import ObjectStore
from reshelve.validation.readiness import readiness
from reshelve.validation.validate import validate
from reshelve.validation.verdicts import PartitionVerdict, read_verdict
from reshelve.validation.waivers import release_quarantine

DAY = date(2011, 8, 1)
Events = Callable[..., pa.Table]
Land = Callable[..., None]
Read = Callable[[str], pa.Table]


def stored(store: ObjectStore) -> PartitionVerdict:
    found = read_verdict(store, "retail", DAY)
    assert found is not None
    return found


def test_a_released_quarantine_is_merged_and_both_verdicts_stay(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Read
) -> None:
    land_bytes(events(100, {5: {"item_id": None}, 9: {"price": 0.0}, 10: {"price": 0.0, "session_id": None}}))
    validate("retail", DAY)
    before = stored(store)
    assert (before.rows_good, before.rows_quarantined) == (97, 3)
    done = release_quarantine("retail", DAY, ["price_possible"], by="ann", reason="gifts that week")
    after = stored(store)
    assert (done["released_rows"], after.rows_good, after.rows_quarantined) == (1, 98, 2)
    assert after.released == ("price_possible",)
    assert after.digest != before.digest
    held = read_table(after.file("quarantine.parquet"))["broken_rules"].to_pylist()
    assert held == [["item_known"], ["session_known"]]
    # What a model was trained on before is still there, to the row.
    assert len(read_table(before.file("good.parquet"))) == 97
    assert store.get_json(before.file("verdict.json")) == before.result()
    assert release_quarantine("retail", DAY, ["price_possible"])["reused"] is True


def test_only_quarantine_rules_of_a_judged_day_are_released(events: Events, land_bytes: Land) -> None:
    with pytest.raises(DataError, match="has no verdict"):
        release_quarantine("retail", DAY, ["item_known"])
    with pytest.raises(ConfigurationError, match="title_known is not a quarantine rule of retail"):
        release_quarantine("retail", DAY, ["title_known"])


def test_a_late_file_reopens_the_verdict(store: ObjectStore, events: Events, land_bytes: Land) -> None:
    land_bytes(events(40))
    validate("retail", DAY)
    assert readiness("retail", DAY)["rows_good"] == 40
    late = events(50).slice(40)
    land_bytes(late, "part-1.parquet")
    with pytest.raises(TryAgainError, match="files arrived or changed after it was validated"):
        readiness("retail", DAY)
    again = validate("retail", DAY)
    assert (again["rows_in"], again["rows_good"], again["reused"]) == (50, 50, False)
    assert readiness("retail", DAY)["rows_good"] == 50


def test_the_past_is_remembered_and_a_day_unlike_it_is_told(
    store: ObjectStore, events: Events, read_table: Read
) -> None:
    """Three Mondays of 600 rows, then one with a seventh of them."""
    result: dict[str, Any] = {}
    for week in range(4):
        day = DAY + timedelta(weeks=week)
        noon = datetime(day.year, day.month, day.day, 12)
        rows = 90 if week == 3 else 600
        changes = {row: {"event_time": noon + timedelta(seconds=row)} for row in range(rows)}
        sink = io.BytesIO()
        pq.write_table(events(rows, changes), sink)
        store.put(landed_prefix("retail", day) + "part-0.parquet", sink.getvalue())
        result = validate("retail", day)
        assert result["compared_with"] == week
    broken = {rule["rule"]: rule["message"] for rule in result["rules"]}
    assert broken == {"rows_as_usual": "90 rows; the 3 trailing Mondays had 600 (median)"}
    assert "items_known" in result["unasked"]  # three days are no past of items


@pytest.mark.slow
@pytest.mark.parametrize("until", ["good.parquet", "report.html"])
def test_a_pass_that_is_killed_takes_nothing_away(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Read, until: str
) -> None:
    """A real child is killed (SIGKILL) while it publishes; the old verdict holds, and the next pass is whole."""
    land_bytes(events(40, {7: {"item_id": None}}))
    validate("retail", DAY)
    before = stored(store)
    land_bytes(events(60).slice(40), "part-1.parquet")
    child = subprocess.Popen(
        [sys.executable, "-c", _SLOW_PUBLISHER.format(until=until)],
        env=os.environ.copy(),
        start_new_session=True,
    )
    try:
        wait_for(
            lambda: any(
                key.endswith(until) and before.folder not in key
                for key, _ in store.list(validated_prefix("retail", DAY))
            )
        )
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert stored(store) == before
    assert len(read_table(before.file("good.parquet"))) == 39
    with pytest.raises(TryAgainError):
        readiness("retail", DAY)
    after = validate("retail", DAY)
    assert (after["rows_in"], after["rows_good"], after["rows_quarantined"]) == (60, 59, 1)
    assert len(read_table(before.file("good.parquet"))) == 39


# The real verb's code, but it stands still after the object `until`, so that the kill comes at that moment.
_SLOW_PUBLISHER = """
import time
from datetime import date, datetime, timedelta
from reshelve.store.objects import ObjectStore
upload = ObjectStore.upload_file
def slow(self, path, key, progress=None):
    upload(self, path, key, progress)
    if key.endswith("{until}"):
        time.sleep(600)
ObjectStore.upload_file = slow
from reshelve.validation.validate import validate
validate("retail", date(2011, 8, 1))
"""


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
