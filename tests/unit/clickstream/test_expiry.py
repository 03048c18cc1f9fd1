"""Days that a source keeps no longer are deleted, whole, and do not come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from reshelve.landing.land import land
from reshelve.store.objects import ObjectStore
from reshelve.validation.expiry import expire
from reshelve.validation.validate import validate_range
from reshelve.validation.verdicts import validated_partitions
from reshelve.validation.waivers import release_quarantine

TODAY = datetime.now(UTC).date()
RawSource = Callable[..., Path]


def lines(*ages: int) -> str:
    rows = [f"{TODAY - timedelta(days=age)} 09:00:00,v{age},tea,{age + 1}" for age in ages]
    return "\n".join(["seen,visit,q,sku", *rows]) + "\n"


def keep(mapping: Path, days: int) -> None:
    mapping.write_text(mapping.read_text() + f"keep_days: {days}\n")


def ages(days: Iterable[date]) -> list[int]:
    return sorted((TODAY - day).days for day in days)


def landed(store: ObjectStore) -> list[int]:
    found = [re.search(r"dt=([-0-9]+)/", key) for key, _ in store.list("clickstream/shop/")]
    return ages(date.fromisoformat(match[1]) for match in found if match)


def test_old_days_go_with_everything_that_was_judged_of_them(
    store: ObjectStore, raw_source: RawSource
) -> None:
    mapping = raw_source(lines(1, 5, 30, 31, 60))
    land("shop")
    validate_range("shop")
    release_quarantine("shop", TODAY - timedelta(days=31), ["item_known"])
    keep(mapping, 30)
    would = expire("shop", dry_run=True)
    assert would["days"] == [str(TODAY - timedelta(days=age)) for age in (60, 31)]
    assert landed(store) == [1, 5, 30, 31, 60]
    done = expire("shop", dry_run=False)
    assert (done["days"], done["objects"]) == (would["days"], would["objects"])
    assert landed(store) == [1, 5, 30]
    assert ages([verdict.partition for verdict in validated_partitions(store, "shop")]) == [1, 5, 30]
    gone = [key for day in done["days"] for key, _ in store.list("") if f"dt={day}" in key]
    assert gone == []
    assert expire("shop", dry_run=False)["days"] == []


def test_what_was_deleted_is_not_landed_again(store: ObjectStore, raw_source: RawSource) -> None:
    keep(raw_source(lines(1, 31)), 30)
    assert land("shop")["partitions"] == 1
    assert land("shop", TODAY - timedelta(days=60), TODAY)["partitions"] == 1
    assert landed(store) == [1]


@pytest.mark.usefixtures("store")
def test_everything_is_kept_where_nothing_is_said(raw_source: RawSource) -> None:
    raw_source(lines(1, 4000))
    land("shop")
    assert expire("shop", dry_run=False) == {
        "source": "shop", "dry_run": False, "keeps_from": None, "days": [], "objects": 0,
    }  # fmt: skip
