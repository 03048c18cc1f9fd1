"""Whether an agent lives is the store's word, not the report's own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reshelve.protocol.reports import Report, live_reports, read_reports, write_report
from reshelve.store.objects import ObjectStore


@pytest.mark.parametrize("year", [2000, 2100])
def test_the_clock_of_a_report_says_nothing_of_its_age(store: ObjectStore, year: int) -> None:
    """A host whose clock is wrong lives; and nobody writes a report that would count as new for ever."""
    said = Report(agent="a", server="h:1", at=datetime(year, 1, 1, tzinfo=UTC), sequence=1)
    write_report(store, "recommend", said)
    (found,) = read_reports(store, "recommend")
    assert 0 <= found.age() < 30
    assert [report.agent for report in live_reports(store, "recommend")] == ["a"]
