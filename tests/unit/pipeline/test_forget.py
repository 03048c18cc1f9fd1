"""A person's rows leave all that is kept; killed anywhere, the next call goes on; no night publishes what knew them."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import landed_prefix
from reshelve.clickstream.forgotten import add_request, read_forgotten, user_digest
from reshelve.clickstream.privacy import pseudonym, pseudonym_keys
from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, DataError, PartlyDoneError, TryAgainError
from reshelve.landing.land import land
from reshelve.lineage.run import Run
from reshelve.pipeline.forget import forget
from reshelve.pipeline.pinned_night import begin, rules_of
from reshelve.pipeline.publish import _require_nobody_forgotten
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.validation.history import load_history
from reshelve.validation.readiness import readiness
from reshelve.validation.validate import validate

DAYS = [date(2011, 8, 1), date(2011, 8, 2)]
CSV = "seen,who,visit,sku,q\n" + "".join(
    f"{day} 09:0{n}:00,{who},{visit},1{n},mug\n"
    for day in DAYS
    for n, (who, visit) in enumerate([("anna", "v1"), ("", "v1"), ("ben", "v2"), ("", "v3")])
    if not (day == DAYS[1] and who == "anna")
)
MAPPING = """name: shop
files: {folder}/raw*.csv
format: csv
event_date: CAST(seen AS DATE)
columns:
  event_id: md5(CAST(source AS VARCHAR))
  event_time: CAST(seen AS TIMESTAMP)
  event_type: "'click'"
  user_id: who
  session_id: visit
  query: q
  item_id: sku
"""
RANKER = {"name": "shop", "title": "The shop", "kind": "search", "data": {"source": "shop"}, "gates": {"metric": "map@5"}}  # fmt: skip


class Shop:
    """Two days that landed, were judged, trained on and asked about."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store, self.folder = store, folder

    def fill(self) -> None:
        (self.folder / "shop.yaml").write_text(MAPPING.format(folder=self.folder))
        (self.folder / "raw.csv").write_text(CSV)
        land("shop")
        for day in DAYS:
            validate("shop", day)
        for run, days in (
            ("shop/2011-08-02/aaaaaaaaaaaa", DAYS),
            ("shop/2011-07-30/bbbbbbbbbbbb", [date(2011, 7, 29)]),
        ):
            self.store.put_json(f"runs/{run}/examples/result.json", self.result(days))
            self.store.put_json(f"runs/{run}/train/result.json", {"run": run})
            self.store.put(
                f"runs/{run}/examples/events.parquet", parquet([{"user_id": "anna", "session_id": "v1"}])
            )
            work = settings().work / run / "examples"
            work.mkdir(parents=True)
            (work / "events.parquet").write_bytes(parquet([{"user_id": "anna", "session_id": "v1"}]))
        (settings().rankers_dir / "shop.yaml").write_text(
            "name: shop\ntitle: The shop\nkind: search\ndata: {source: shop}\ngates: {metric: map@5}\n"
        )
        self.store.put(
            "requests/shop/dt=2011-08-01/a.parquet", parquet([{"session": "v1"}, {"session": "v2"}])
        )
        self.store.put("requests/shop/dt=2011-08-01/b.parquet", b"PAR1 damaged")

    @staticmethod
    def result(days: list[date]) -> dict[str, Any]:
        return {"source": "shop", "verdicts": {str(day): "x" for day in days}, "forgotten": ""}

    def rows(self, name: str) -> list[dict[str, Any]]:
        keys = [
            key for kind in ("clickstream", "validated", "requests") for key, _ in self.store.list(f"{kind}/")
        ]
        return [
            row
            for key in sorted(keys)
            if name in key and key.endswith(".parquet") and "items" not in key
            for row in table(self.store, key).to_pylist()
        ]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def table(store: ObjectStore, key: str) -> pa.Table:
    found = store.get(key)
    assert found is not None, key
    return pq.read_table(io.BytesIO(found.body))


@pytest.fixture
def shop(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for name in ("clickstreams", "rankers"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"RESHELVE_{name.upper()}_DIR", str(tmp_path / name))
    settings.cache_clear()
    made = Shop(store, tmp_path / "clickstreams")
    yield made
    settings.cache_clear()


def assert_forgotten(shop: Shop) -> None:
    """No row of hers, nor of her visit before she logged in, and all rows of the others: of v1 on another day, too."""
    for name in ("clickstream/", "validated/"):
        found = shop.rows(name)
        assert {row["user_id"] for row in found} == {"ben", None}
        assert sorted(row["session_id"] for row in found) == ["v1", "v2", "v2", "v3", "v3"]
    assert shop.rows("requests/") == [{"session": "v2"}]
    assert {key.split("/")[2] for key, _ in shop.store.list("runs/shop/")} == {"2011-07-30"}
    assert [path.name for path in sorted(settings().work.glob("shop/*/*"))] == ["bbbbbbbbbbbb"]


def test_all_that_is_kept_is_reached_and_nothing_comes_back(shop: Shop) -> None:
    shop.fill()
    found = forget("shop", ["anna"])
    assert_forgotten(shop)
    assert (found["rows"], found["runs"]) == (
        {"landed": 2, "validated": 2, "requests": 1},
        ["shop/2011-08-02/aaaaaaaaaaaa"],
    )
    again = forget("shop", ["anna"])
    assert (again["rows"], again["runs"], again["days"]) == ({}, [], ["2011-08-01"])
    done = land("shop")  # the raw files still have her
    assert (done["skipped"], done["refused"], done["late"]) == (2, [], 0)
    for day in DAYS:
        assert readiness("shop", day)["verdict"] == "warn", "the verdicts hold for what is left"
        validate("shop", day)  # the first into a folder of its own, beside the one before
    found = shop.rows("clickstream/") + shop.rows("validated/")
    assert {row["user_id"] for row in found} == {"ben", None} and len(found) == 5 + 5 + 2


def test_a_later_call_leaves_alone_what_was_made_without_them(shop: Shop) -> None:
    shop.fill()
    forget("shop", ["anna"])
    run = "shop/2011-08-02/dddddddddddd"
    left_out = list(read_forgotten(shop.store, "shop").requests)
    shop.store.put_json(f"runs/{run}/examples/result.json", {**shop.result(DAYS), "left_out": left_out})
    assert forget("shop", ["anna"])["runs"] == []
    assert forget("shop", ["ben"])["runs"] == [run]


def test_pseudonyms_are_found_by_the_id(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "RESHELVE_PSEUDONYM_KEYS",
        "2011-01-01:the-first-secret-of-the-shop,2011-08-02:the-second-secret-of-it",
    )
    settings.cache_clear()
    shop.fill()
    names = {pseudonym(name, pseudonym_keys(), day) for name in ("anna", "v1") for day in DAYS}
    before = shop.rows("clickstream/")
    assert names & {row["user_id"] for row in before}
    forget("shop", ["anna"])
    for row in shop.rows("clickstream/") + shop.rows("validated/"):
        assert not names & {row["user_id"], row["session_id"]} or row["session_id"] == pseudonym(
            "v1", pseudonym_keys(), DAYS[1]
        )
    assert len(before) - len(shop.rows("clickstream/")) == 2


def test_killed_between_any_two_steps_the_next_call_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill()
    kept = {key: shop.store.get(key).body for key, _ in shop.store.list("")}  # type: ignore[union-attr]
    steps, at = 0, 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: ObjectStore, *args: Any, **how: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                raise KeyboardInterrupt
            return real(self, *args, **how)

        return call

    monkeypatch.setattr(ObjectStore, "put", counted(ObjectStore.put))
    monkeypatch.setattr(ObjectStore, "upload_file", counted(ObjectStore.upload_file))
    monkeypatch.setattr(ObjectStore, "delete", counted(ObjectStore.delete))
    for at in range(1, 40):  # noqa: B007
        steps = 0
        try:
            forget("shop", ["anna"])
        except KeyboardInterrupt:
            steps = -1_000
            forget("shop", ["anna"])
            assert_forgotten(shop)
        else:
            break
        steps = -1_000
        shop.store.delete([key for key, _ in shop.store.list("") if key not in kept])
        for key, body in kept.items():
            shop.store.put(key, body)
        (settings().work / "shop/2011-08-02/aaaaaaaaaaaa").mkdir(parents=True)
    assert at > 8, "there are steps to be killed between"


def test_one_damaged_file_does_not_keep_the_others(shop: Shop) -> None:
    shop.fill()
    key = landed_prefix("shop", DAYS[1]) + "part-0.parquet"
    shop.store.put(key, b"PAR1 damaged")
    with pytest.raises(PartlyDoneError, match="1 places were not reached") as partly:
        forget("shop", ["anna"])
    assert key in partly.value.detail
    assert {row["user_id"] for row in shop.rows("validated/")} == {"ben", None}
    assert shop.rows("requests/") == [{"session": "v2"}]


def test_what_another_program_landed_as_text_is_named(shop: Shop) -> None:
    shop.fill()
    key = landed_prefix("shop", DAYS[0]) + "more.csv"
    shop.store.put(key, b"event_id,user_id\n1,anna\n")
    with pytest.raises(PartlyDoneError) as partly:
        forget("shop", ["anna"])
    assert f"{key}: no Parquet" in partly.value.detail


def test_while_a_night_is_under_way_it_refuses_and_that_night_publishes_nothing(shop: Shop) -> None:
    shop.fill()
    run = "shop/2011-08-02/cccccccccccc"
    pin = {"begun_at": datetime.now(UTC).isoformat(), "ranker": RANKER}
    shop.store.put_json(f"runs/{run}/pin.json", pin)
    shop.store.put_json(f"runs/{run}/examples/result.json", shop.result(DAYS))
    before = shop.rows("clickstream/")
    for _ in range(2):  # repeated as documented, while it still runs
        with pytest.raises(TryAgainError, match="under way"):
            forget("shop", ["anna"])
    assert shop.rows("clickstream/") == before
    night = Run(Ranker.model_validate(RANKER), DAYS[1], shop.store, settings().work, begun="cccccccccccc")
    with pytest.raises(DataError, match="asked to forget somebody"):
        _require_nobody_forgotten(night)
    shop.store.put_json(f"runs/{run}/gate/result.json", {"verdict": "reject"})  # it has ended
    assert run in forget("shop", ["anna"])["runs"]
    assert_forgotten(shop)


def test_a_stage_at_work_on_this_machine_is_a_night_under_way(shop: Shop) -> None:
    shop.fill()
    night = Run(Ranker.model_validate(RANKER), DAYS[1], shop.store, settings().work, begun="aaaaaaaaaaaa")
    with night.stage("train").lock(), pytest.raises(TryAgainError, match="aaaaaaaaaaaa"):
        forget("shop", ["anna"])


@pytest.mark.parametrize("people", [[], ["", "  "]])
def test_nobody_is_refused(shop: Shop, people: list[str]) -> None:
    shop.fill()
    with pytest.raises(ConfigurationError, match="nobody is named"):
        forget("shop", people)
    assert read_forgotten(shop.store, "shop").generation == ""


def test_a_visit_is_theirs_on_its_day_alone_and_a_user_is_no_visit(shop: Shop) -> None:
    (shop.folder / "shop.yaml").write_text(MAPPING.format(folder=shop.folder))
    rows = "\n".join(
        (
            "2011-08-01 09:00:00,anna,17,10,mug",
            "2011-08-01 09:01:00,,17,11,mug",
            "2011-08-01 09:02:00,ben,18,12,mug",  # together with anna: its rows without an id are nobody's
            "2011-08-01 09:03:00,anna,18,13,mug",
            "2011-08-01 09:04:00,,18,14,mug",
            "2011-08-01 09:05:00,ben,anna,15,mug",
            "2011-08-02 09:00:00,ben,17,16,mug",
            "2011-08-02 09:01:00,,17,17,mug",
        )
    )
    (shop.folder / "raw.csv").write_text(f"seen,who,visit,sku,q\n{rows}\n")
    land("shop")
    forget("shop", ["anna"])
    assert sorted(row["item_id"] for row in shop.rows("clickstream/")) == ["12", "14", "15", "16", "17"]
    (shop.folder / "raw-2.csv").write_text("seen,who,visit,sku,q\n2011-08-02 10:00:00,,17,20,mug\n")
    assert land("shop")["late_days"] == ["2011-08-02"]
    forget("shop", sessions=["17"])  # a visitor without an id, on any day
    assert sorted(row["item_id"] for row in shop.rows("clickstream/")) == ["12", "14", "15", "16"]


def test_a_full_disk_takes_no_log(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill()
    real = pq.ParquetWriter.write_batch

    def full(self: Any, batch: pa.RecordBatch, *rest: Any) -> None:
        if "session" in batch.schema.names:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, batch, *rest)

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    with pytest.raises(OSError, match="No space left"):
        forget("shop", ["anna"])
    assert shop.store.exists("requests/shop/dt=2011-08-01/a.parquet")


def test_a_night_that_has_published_can_still_be_released(shop: Shop) -> None:
    shop.fill()
    run = "shop/2011-08-02/cccccccccccc"
    ranker = Ranker.model_validate(RANKER)
    begin(Run(ranker, DAYS[1], shop.store, settings().work, begun="cccccccccccc"), {})
    shop.store.put_json(f"runs/{run}/examples/result.json", shop.result(DAYS))
    shop.store.put_json(f"runs/{run}/publish/result.json", {"published": True})
    assert run in forget("shop", ["anna"])["runs"]
    assert [key for key, _ in shop.store.list(f"runs/{run}/")] == [f"runs/{run}/pin.json"]
    assert rules_of("shop", run).release == ranker.release
    again = forget("shop", ["anna"])  # it is not under way, nor deleted again
    assert again["runs"] == [] and rules_of("shop", run).release == ranker.release


def test_what_was_landing_or_being_validated_keeps_nothing_of_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill()
    real = ObjectStore.delete
    late = landed_prefix("shop", DAYS[1]) + "part-1.parquet"
    first = shop.store.get(landed_prefix("shop", DAYS[0]) + "part-0.parquet")
    assert first is not None

    def landed_meanwhile(self: ObjectStore, keys: Any) -> Any:
        if any("requests/" in key for key in keys):  # when the rows of all days are gone
            self.put(late, first.body)
        return real(self, keys)

    monkeypatch.setattr(ObjectStore, "delete", landed_meanwhile)
    assert forget("shop", ["anna"])["days"] == ["2011-08-01", "2011-08-02"]
    assert "anna" not in {row["user_id"] for row in shop.rows("clickstream/")}


@pytest.mark.parametrize("work", ["land", "validate"])
def test_who_has_read_rows_before_the_wish_keeps_none(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    (shop.folder / "shop.yaml").write_text(MAPPING.format(folder=shop.folder))
    (shop.folder / "raw.csv").write_text(CSV)
    if work == "validate":
        land("shop")

    def asked(*_: Any, **__: Any) -> Any:
        add_request(shop.store, "shop", "meanwhile", {user_digest("anna")})
        return result

    if work == "land":
        result: Any = None
        monkeypatch.setattr("reshelve.landing.land.protect", asked)
    else:
        result = load_history(shop.store, "shop", DAYS[0], 1, settings().work / "history", items=False)
        monkeypatch.setattr("reshelve.validation.validate.load_history", asked)
    with pytest.raises(TryAgainError, match="asked to forget"):
        land("shop") if work == "land" else validate("shop", DAYS[0])
    assert shop.rows("clickstream/" if work == "land" else "validated/") == []
