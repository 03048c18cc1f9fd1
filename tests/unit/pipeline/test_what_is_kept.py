"""Every entry of the list of personal data is acted upon: what is over goes by itself, and a wish to be forgotten reaches it."""

from __future__ import annotations

import io
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.deployed import put_version

from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.privacy import pseudonym, pseudonym_keys
from reshelve.config.ranker import Ranker
from reshelve.errors import DataError
from reshelve.landing.land import land
from reshelve.pipeline.forget import forget
from reshelve.pipeline.personal_data import BUCKET, HOME, SCRATCH_OF, WORK, End, Forget, Held, held_as
from reshelve.pipeline.retention import clean
from reshelve.pipeline.source_runs import rankers_of
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.validation.expiry import expire

OLD, NEWEST = date(2011, 8, 1), date(2011, 8, 30)
RUN = "aaaaaaaaaaaa"
ENDS = {
    "clickstream/*/dt=*/**": f"clickstream/shop/dt={OLD}/part-0.parquet",
    "validated/*/dt=*/**good.parquet": f"validated/shop/dt={OLD}/abc/good.parquet",
    "validated/*/dt=*/**quarantine.parquet": f"validated/shop/dt={OLD}/abc/quarantine.parquet",
    "validated/**": f"validated/shop/dt={OLD}/verdict.json",
    "released/**": f"released/shop/dt={OLD}/one.json",
    # Of a day that is kept: what is a customer's goes before the run does.
    "runs/*/*/*/examples/*.parquet": f"runs/shop/{NEWEST}/{RUN}/examples/events.parquet",
    "runs/*/*/stages/**": f"runs/shop/{OLD}/stages/examples.json",
    "runs/*/*/*/pin.json": f"runs/shop/{OLD}/{RUN}/pin.json",
    "runs/**": f"runs/shop/{OLD}/{RUN}/train/model.safetensors",
    "models/**": "models/shop/20110801001/saved_model.pb",
    "encoded/**": f"encoded/shop/{'a' * 64}/{'b' * 32}.parquet",
    "deployments/*/agents/**": "deployments/shop/agents/one.json",
    "deployments/*/traffic/**": "deployments/shop/traffic/one.json",
    "monitoring/**": f"monitoring/shop/{OLD}/120000.json",
    "requests/*/dt=*/*": f"requests/shop/dt={OLD}/part.parquet",
}
"""Of each entry of the bucket that ends: an object that is over. A new entry needs one here."""
NO_CUSTOMERS = {"", "names of colleagues", "names of callers", "digests of ids", "see the bucket"}
TELLS_WHO = re.compile(r"\bids\b|pseudonyms|raw and landed rows|as the run's files")
MAPPING = """name: shop
files: {folder}/raw.csv
format: csv
keep_days: 30
columns: {{event_id: seen, event_time: CAST(seen AS TIMESTAMP), event_type: "'click'", user_id: who, session_id: visit, query: q, item_id: sku}}
"""


@pytest.fixture
def ranker(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranker:
    """A ranker and its source, both called shop; the two newest versions are kept."""
    document = {"name": "shop", "title": "The shop", "kind": "search", "data": {"source": "shop"}, "gates": {"metric": "map@5"}, "release": {"keep": 2}}  # fmt: skip
    for name in ("clickstreams", "rankers"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"RESHELVE_{name.upper()}_DIR", str(tmp_path / name))
    settings.cache_clear()
    (tmp_path / "clickstreams" / "shop.yaml").write_text(MAPPING.format(folder=tmp_path))
    made = Ranker.model_validate(document)
    (tmp_path / "rankers" / "shop.yaml").write_text(made.model_dump_json(include=set(document)))
    return made


def age(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        os.utime(path, (0, 0))


def test_who_tells_of_customers_ends_and_who_names_them_is_reached() -> None:
    for held in (*BUCKET, *HOME):
        if held.personal not in NO_CUSTOMERS:
            assert held.end is not End.LASTS, held.where
        if TELLS_WHO.search(held.personal) and held.personal not in NO_CUSTOMERS:
            assert held.forget in (Forget.ROWS, Forget.WHOLE, Forget.LEFT), held.where
    assert {held.where for held in BUCKET if held.end is not End.LASTS} == ENDS.keys()


def test_what_is_over_goes_by_itself(
    store: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (20110801001, 20110829001, 20110830001):
        put_version(store, "shop", version)
    for where, key in ENDS.items():
        held = held_as(key, BUCKET)
        assert held is not None and held.where == where
        store.put(key, b"{}")
    lasting = {key for key, _ in store.list("")} - set(ENDS.values())
    monkeypatch.setattr(ObjectStore, "last_modified", lambda *_: datetime(2011, 9, 1, tzinfo=UTC))
    expire("shop", dry_run=False)
    clean(ranker, dry_run=False)
    left = {key for key, _ in store.list("")}
    assert not left & set(ENDS.values()) and "models/shop/20110830001/saved_model.pb" in left & lasting


def test_what_is_over_on_this_machine_goes_whosever_it_was(store: ObjectStore, ranker: Ranker) -> None:
    """Also of a ranker whose file is gone: nobody else comes for it."""
    work = settings().work
    old = [work / f"{done}-x1y2" for done in SCRATCH_OF]
    old += [work / name / str(OLD) / RUN for name in ("shop", "former")]
    kept = [work / "history" / "shop" / "dt=2011-08-01", work / ".code" / "a" / "b"]
    for directory in (*old, *kept):
        (directory / "examples").mkdir(parents=True)
        (directory / "examples" / "events.parquet").touch()
        age(directory)
        held = held_as(f"{directory.relative_to(settings().home)}/examples/events.parquet", HOME)
        assert held is not None and (held is WORK or held.end is End.SCRATCH) is (directory in old)
    clean(ranker, dry_run=False)
    assert [path for path in old if path.exists()] == [] and all(path.exists() for path in kept)


def parquet(**row: Any) -> bytes:
    sink = io.BytesIO()
    known = EVENT_SCHEMA if "item_id" in row else None
    whole = {**dict.fromkeys(EVENT_SCHEMA.names), **row} if known else row
    pq.write_table(pa.Table.from_pylist([whole], known), sink)
    return sink.getvalue()


def forgettable(held: Held) -> bool:
    return held.forget in (Forget.ROWS, Forget.WHOLE, Forget.LEFT)


def test_to_forget_reaches_every_place_that_the_list_says_it_does(store: ObjectStore, ranker: Ranker) -> None:
    """Also the log of a ranker of which nothing else is left: nobody can say any more whose customers asked it."""
    rows = parquet(event_id="e", event_time=datetime(2011, 8, 1, 9), event_type="click", user_id="anna", session_id="v1", item_id="1")  # fmt: skip
    asked, run = parquet(session="v1"), f"shop/{OLD}/{RUN}"
    bucket = {
        f"clickstream/shop/dt={OLD}/part-0.parquet": rows,
        f"clickstream/shop/dt={OLD}/part-1.parquet": rows,
        f"validated/shop/dt={OLD}/abc/good.parquet": rows,
        f"validated/shop/dt={OLD}/abc/quarantine.parquet": rows,
        f"runs/{run}/examples/events.parquet": rows,
        f"runs/{run}/train/model.safetensors": b"anna",
        f"requests/shop/dt={OLD}/part.parquet": asked,
        f"requests/former/dt={OLD}/part.parquet": asked,
    }
    home = {f"work/{run}/examples/events.parquet": rows}
    home |= {f"work/{done}-x1y2/raw.csv": b"anna" for done in SCRATCH_OF}
    reached = {*(held_as(key, BUCKET) for key in bucket), *(held_as(name, HOME) for name in home)}
    assert reached == {held for held in (*BUCKET, *HOME) if forgettable(held)}, "a place without an example"
    store.put_json(f"runs/{run}/examples/result.json", {"source": "shop", "verdicts": {str(OLD): "x"}})
    for key, body in bucket.items():
        store.put(key, body)
    for name, body in home.items():
        path = settings().home / name
        path.parent.mkdir(parents=True)
        path.write_bytes(body)
        (path.parent / ".held").touch()
        age(path.parent)
    forget("shop", ["anna"])
    for key in bucket:
        found = store.get(key)
        assert found is None or pq.read_metadata(io.BytesIO(found.body)).num_rows == 0, key
    assert [name for name in home if (settings().home / name).exists()] == []


@pytest.mark.parametrize("document", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"source": 7, "verdicts": 3}', b'{"verdicts": {"no day": 1}}', b'{"source": "shop", "verdicts": {"no day": 1}}', b'{"ranker": 3, "begun_at": "2011-08-01"}'], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["examples/result.json", "pin.json", "publish/result.json"])
def test_a_run_that_says_nonsense_of_itself_keeps_nobodys_rows(
    store: ObjectStore, ranker: Ranker, name: str, document: bytes
) -> None:
    """Whoever may write to the bucket can neither stop it nor hide a run from it: such a run may have read anything."""
    run = f"runs/shop/{OLD}/{RUN}"
    store.put(f"{run}/examples/events.parquet", b"rows")
    store.put(f"{run}/{name}", document)
    assert forget("shop", ["anna"])["runs"] == [run.removeprefix("runs/")]
    assert not store.exists(f"{run}/examples/events.parquet")


@pytest.mark.parametrize("document", [b"{", b"[]", b"{}", b'{"at": "x", "ids": 3}'], ids=str)
def test_where_it_is_not_known_whom_to_leave_out_no_row_is_read(
    store: ObjectStore, ranker: Ranker, tmp_path: Path, document: bytes
) -> None:
    store.put("forgotten/shop/one.json", document)
    (tmp_path / "raw.csv").write_text("seen,who,visit,q,sku\n2026-11-30 09:00:00,anna,v1,mug,1\n")
    for work in (lambda: land("shop"), lambda: forget("shop", ["anna"])):
        with pytest.raises(DataError, match=r"forgotten/shop/one\.json is damaged: whom to leave out"):
            work()
    assert [key for key, _ in store.list("clickstream/")] == []


@pytest.mark.parametrize("top", ["runs/", "requests/"])
def test_a_folder_of_the_bucket_leads_nowhere_on_this_machine(
    store: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    """The local store refuses such a name; not every store does. `work/..` is the home, and `keys/trusted` like a run in it."""
    real = ObjectStore.folders
    told = {top: ["..", "shop", "a b"], "runs/../": [str(OLD)], f"runs/../{OLD}/": [RUN]}

    def folders(self: ObjectStore, prefix: str) -> list[str]:
        return told.get(prefix) or real(self, prefix)

    monkeypatch.setattr(ObjectStore, "folders", folders)
    monkeypatch.setattr("reshelve.pipeline.source_runs.source_of", lambda *_: "shop")
    settings().work.mkdir()
    before = sorted(path for path in settings().home.rglob("*") if path.is_file())
    assert rankers_of(store, "shop") == ["shop"]
    forget("shop", ["anna"])
    assert sorted(path for path in settings().home.rglob("*") if path.is_file()) == before


def test_who_is_named_by_a_pseudonym_alone_does_not_come_back(
    store: ObjectStore, ranker: Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the landed rows have them: landing finds them when it has made the pseudonyms, for the raw file has another id."""
    monkeypatch.setenv("RESHELVE_PSEUDONYM_KEYS", "2011-01-01:the-secret-of-the-shop")
    settings.cache_clear()
    today = datetime.now(UTC).date()
    rows = [f"{today} 09:00:00,{who},visit of {who},mug,1" for who in ("anna", "ben")]
    (tmp_path / "raw.csv").write_text("\n".join(["seen,who,visit,q,sku", *rows]) + "\n")
    forget("shop", [pseudonym("anna", pseudonym_keys(), today)])
    assert land("shop")["rows"] == 1
    (key,) = [key for key, _ in store.list("clickstream/")]
    found = store.get(key)
    assert found is not None
    assert pq.read_table(io.BytesIO(found.body))["user_id"].to_pylist() == [pseudonym("ben", pseudonym_keys(), today)]  # fmt: skip
