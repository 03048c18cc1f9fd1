"""A first mapping file and ranker file from exports that nobody has described."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from reshelve.cli import app
from reshelve.clickstream.database import connect
from reshelve.errors import ConfigurationError, DataError
from reshelve.examples.new_ranker import new_ranker
from reshelve.landing.column_roles import event_types
from reshelve.landing.mapping import map_events
from reshelve.landing.new_source import new_source, write
from reshelve.landing.trial import try_day
from reshelve.pipeline.references import load_ranker
from reshelve.raw.column_kinds import look_at
from reshelve.raw.sources import load_source
from reshelve.settings import settings

GERMAN = "Zeitpunkt;Sitzung;Kundennr;Aktion;Artikelnummer;Artikelbezeichnung;Suchbegriff;Menge;Einzelpreis;Land;intern\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Empty folders for mapping and ranker files, and one for raw files."""
    for name, variable in (("sources", "CLICKSTREAMS"), ("rankers", "RANKERS")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"RESHELVE_{variable}_DIR", str(tmp_path / name))
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path


def german(here: Path, days: int = 3) -> str:
    """A German shop's export, a file a day: semicolons, decimal commas, cp1252, titles inside. Returns its pattern."""
    for day in range(1, days + 1):
        rows = [
            f"0{day}.01.2026 09:{n % 60:02}:00;S{day}-{n // 3};K-{n % 7};{('Artikel angesehen', 'In den Warenkorb', 'Kauf', 'Newsletter geöffnet')[n % 4]};"
            f"{n % 30 + 400:05};Grüne Tasse {n % 30};{'tasse' if n % 2 else ''};2;1.{n:03},50 €;DE;{n}"
            for n in range(60)
        ]
        text = GERMAN + "\n".join(rows) + "\n"
        (here / f"export_2026010{day}.csv").write_text(text, encoding="cp1252")
    return f"{here}/export_*.csv"


def events(here: Path, source: str) -> list[dict[str, object]]:
    """What the mapping makes of the raw files."""
    with connect(here / "events.duckdb") as db:
        scratch = here / "scratch"
        scratch.mkdir()
        map_events(db, load_source(source), scratch)
        return db.sql("SELECT * FROM events ORDER BY row").to_arrow_table().to_pylist()


def test_a_german_export_is_understood(here: Path) -> None:
    told = new_source("laden", german(here))
    assert told["columns"] == {
        "event_time": "Zeitpunkt", "session_id": "Sitzung", "user_id": "Kundennr", "event_type": "Aktion", "item_id": "Artikelnummer",
        "item_title": "Artikelbezeichnung", "query": "Suchbegriff", "quantity": "Menge", "price": "Einzelpreis", "segment": "Land",
    }  # fmt: skip
    assert told["not_understood"] == [
        "Aktion: Newsletter geöffnet: left out: no impression, click, cart, purchase or return",
        "Zeitpunkt: times have no offset: taken as UTC; set time_zone, and take the second event_time, if they are a shop's",
    ]
    text = (here / "sources" / "laden.yaml").read_text(encoding="utf-8")
    assert '"Aktion"' in text and "export_{date:%Y%m%d}.csv" in text and '# not used: "intern"' in text
    assert "K-1" not in text, "customers stay out of a file that is shared"
    rows = events(here, "laden")
    assert len(rows) == 3 * 45
    assert str(rows[0]["event_time"]) == "2026-01-01 09:00:00" and str(rows[0]["day"]) == "2026-01-01"
    first = {
        name: rows[0][name] for name in ("event_type", "user_id", "item_id", "item_title", "query", "price")
    }
    assert first == {
        "event_type": "click", "user_id": "K-0", "item_id": "00400", "item_title": "Grüne Tasse 0", "query": None, "price": 1000.5,
    }  # fmt: skip
    assert {row["event_type"] for row in rows} == {"click", "cart", "purchase"}


def test_a_file_of_the_project_is_readable_by_a_containers_user(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "shop.yaml", "name: shop")
    finally:
        os.umask(before)
    assert (tmp_path / "shop.yaml").stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_there_is_written_over_only_when_told(here: Path) -> None:
    pattern = german(here)
    path = here / "sources" / "laden.yaml"
    path.write_text("name: mine\n")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="already exists"):
            new_source("laden", pattern)
        assert path.read_text() == "name: mine\n"
    new_source("laden", pattern, force=True)
    assert load_source("laden").name == "laden"


@pytest.mark.parametrize(
    ("name", "content", "columns", "check"),
    [
        pytest.param(
            "a.jsonl",
            "\n".join(
                json.dumps({"ts": 1767606000000 + n, "user": f"u{n}", "event": "add_to_cart", "sku": "007", "title": "Cup", "source": "app"})
                for n in range(5)
            ),
            {"event_time": "ts", "user_id": "user", "event_type": "event", "item_id": "sku", "item_title": "title"},
            {"event_type": "cart", "session_id": "u0/2026-01-05", "item_id": "007"},
            id="json lines, milliseconds, a key called source",
        ),
        pytest.param(
            "b.csv",
            "Report of the shop\n\nInvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice\n"
            '1,22,"Cup, red",-2,01/22/2026 08:26,"$1,234.50"\n1,23,Pot,1,01/23/2026 08:26,$2.00\n',
            {
                "session_id": "InvoiceNo", "item_id": "StockCode", "item_title": "Description", "quantity": "Quantity",
                "event_time": "InvoiceDate", "price": "UnitPrice",
            },
            {"event_type": "return", "price": 1234.5, "item_title": "Cup, red"},
            id="lines above the header, American days and amounts",
        ),
        pytest.param(
            "c.tsv",
            "Datum\tUhrzeit\tBesuch\tProdukt-ID\tVorgang\n05.01.2026\t08:00:01\tv\t1\tklick\n06.01.2026\t09:00:02\tv\t2\tklick\n",
            {"event_time": "Datum", "session_id": "Besuch", "item_id": "Produkt-ID", "event_type": "Vorgang"},
            {"event_type": "click", "item_id": "1"},
            id="day and time of day in two columns",
        ),
    ],
)  # fmt: skip
def test_exports_of_other_kinds(
    here: Path, name: str, content: str, columns: dict[str, str], check: dict[str, object]
) -> None:
    (here / name).write_text(content)
    assert new_source("shop", f"{here}/{name}")["columns"] == columns
    first = events(here, "shop")[0]
    assert {key: first[key] for key in check} == check
    assert str(first["event_time"]).startswith("2026-01-")


def test_what_cannot_be_told_is_said(here: Path) -> None:
    (here / "a.csv").write_text("date,sku,visit\n01/02/2026,1,v\n03/04/2026,2,v\n")
    told = new_source("shop", f"{here}/a.csv")
    assert any("day/month or month/day" in doubt for doubt in told["not_understood"])
    assert any("titles" in doubt for doubt in told["not_understood"])
    assert any("taken as a click" in doubt for doubt in told["not_understood"])
    with pytest.raises(ConfigurationError, match="no file at"):
        new_source("other", f"{here}/none-*.csv")


NAMELESS = "Zeit;Sitzung;Aktion;Objekt;Menge\n"


def furniture(here: Path) -> dict[str, Any]:
    """What is told of an export whose item column has no telling name, beside the product list that has its ids."""
    rows = [
        f"05.01.2026 09:00:{n:02};S{n // 4};{'Seitenaufruf;;' if n % 4 == 0 else f'Produktansicht;{n:04};1'}"
        for n in range(60)
    ]
    (here / "a.csv").write_text(NAMELESS + "\n".join(rows) + "\n")
    products = "\n".join(f"{n};{n:04};Stuhl {n};{n / 10}" for n in range(80))
    (here / "products.csv").write_text(f"Zeile;Code;Text;Gewicht\n{products}\n")
    return new_source("shop", f"{here}/a.csv", f"{here}/products.csv")


def test_the_product_list_tells_which_column_holds_the_items(here: Path) -> None:
    told = furniture(here)
    assert told["columns"]["item_id"] == "Objekt"
    listed = load_source("shop").catalogue
    assert listed and (listed.item_id, listed.title) == ('"Code"', '"Text"')
    assert {row["item_id"] for row in events(here, "shop")} == {f"{n:04}" for n in range(60) if n % 4}


def test_a_kind_of_event_that_names_no_item_is_left_out(here: Path) -> None:
    assert "Aktion: Seitenaufruf: left out: names no item" in furniture(here)["not_understood"]
    assert {row["event_type"] for row in events(here, "shop")} == {"click"}


def test_an_item_column_that_is_not_found_is_the_first_thing_to_say(here: Path) -> None:
    (here / "a.csv").write_text("Zeit;Sitzung;Objekt;Bezeichnung\n05.01.2026 09:00:00;s;0412;Tasse\n")
    told = new_source("shop", f"{here}/a.csv")
    assert any("item_id" in doubt and "Objekt" in doubt for doubt in told["not_understood"])


def test_ids_that_the_product_list_does_not_have_are_said(here: Path) -> None:
    rows = "\n".join(f"05.01.2026 09:00:{n:02};s;{n:04}" for n in range(60))
    (here / "a.csv").write_text(f"Zeit;Sitzung;ArtNr\n{rows}\n")
    products = "\n".join(f"X{n};Stuhl {n}" for n in range(80))
    (here / "products.csv").write_text(f"ArtNr;Bezeichnung\n{products}\n")
    told = new_source("shop", f"{here}/a.csv", f"{here}/products.csv")
    assert told["columns"]["item_id"] == "ArtNr"
    assert "ArtNr: 0% of its values are in the product list (ArtNr)" in told["not_understood"]


def test_titles_of_the_product_list_count_in_the_try(here: Path) -> None:
    furniture(here)
    tried = try_day("shop")
    assert tried["products"] == 80 and not [said for said in tried["broken"] if "title" in said]


@pytest.mark.parametrize(
    ("values", "kind", "made"),
    [
        pytest.param(["00412", "0412"], "integer", ["00412", "0412"], id="numbers keep their zeros"),
        pytest.param(["K-1", "K-2"], "text", ["K-1", "K-2"], id="an id is no amount"),
        pytest.param(["1.234,50 €", "0,99"], "decimal", [1234.5, 0.99], id="decimal comma"),
        pytest.param(["05.01.2026 10:11", "6.1.2026 9:05"], "time", None, id="German time"),
        pytest.param(["20260105", "20261231"], "date", None, id="compact day"),
        pytest.param(["1767606000", "1767606001"], "time", None, id="seconds"),
    ],
)
def test_kinds_of_columns(values: list[str], kind: str, made: list[object] | None) -> None:
    db = connect()
    db.execute("CREATE TABLE t (c VARCHAR)")
    db.executemany("INSERT INTO t VALUES (?)", [[value] for value in values])
    found = look_at(db, "t", "c")
    assert found.kind.name == kind
    if made:
        assert [row[0] for row in db.execute(f"SELECT {found.kind.sql} FROM t").fetchall()] == made


def test_amounts_that_may_be_thousands_are_not_guessed_in_silence() -> None:
    db = connect()
    db.execute(
        "CREATE TABLE t AS SELECT * FROM (VALUES ('1,299', '1,29'), ('12,500', '12,500')) AS t(doubtful, clear)"
    )
    assert any("NOT UNDERSTOOD" in note for note in look_at(db, "t", "doubtful").kind.notes)
    assert not any("NOT UNDERSTOOD" in note for note in look_at(db, "t", "clear").kind.notes)


@pytest.mark.parametrize("content", [b"no gzip", b"\x1f\x8b\x08\x00cut off"], ids=["no gzip", "cut off"])
def test_a_damaged_file_is_bad_data(here: Path, content: bytes) -> None:
    (here / "a.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.csv\.gz cannot be read"):
        new_source("shop", f"{here}/a.csv.gz")


def test_event_types_in_two_languages() -> None:
    known, others = event_types(
        ["view_item", "Retoure", "remove_from_cart", "Bestellung", "view_item_list", "page_view"]
    )
    assert known == {
        "view_item": "click", "Retoure": "return", "Bestellung": "purchase", "view_item_list": "impression"
    }  # fmt: skip
    assert others == ["remove_from_cart", "page_view"]


def test_a_ranker_is_drafted_from_what_the_source_allows(here: Path) -> None:
    new_source("laden", german(here))
    told = new_ranker("suche", "laden")
    ranker = load_ranker("suche")
    assert (told["kind"], ranker.kind, ranker.data.source) == ("search", "search", "laden")
    assert ranker.data.events == {"click": 1.0, "cart": 3.0, "purchase": 5.0}
    document = yaml.safe_load((here / "rankers" / "suche.yaml").read_text())
    assert document["gates"]["metric"] == "map@5" and told["days"] == 3 and told["not_understood"] == []
    with pytest.raises(ConfigurationError, match="already exists"):
        new_ranker("suche", "laden")
    assert document["data"]["window_days"] == 3, "days without rows are only said to be missing"
    assert new_ranker("k", "laden", "next_item")["kind"] == "next_item"
    assert load_ranker("k").gates.metric == "recall@20"
    with pytest.raises(ConfigurationError, match="--kind shelf: expected next_item, pair, search"):
        new_ranker("x", "laden", "shelf")


def test_a_source_that_a_ranker_cannot_learn_from_is_named(here: Path, raw: Callable[..., str]) -> None:
    new_source("shop", raw("date,sku,visit,title\n05.01.2026,1,v,Cup\n05.01.2026,1,w,Cup\n"))
    with pytest.raises(ConfigurationError, match="nothing for a search ranker") as told:
        new_ranker("x", "shop", "search")
    assert "2 click" in str(told.value)


def test_what_is_bought_and_never_looked_at_is_taken_for_no_product(
    here: Path, raw: Callable[..., str]
) -> None:
    rows = "".join(
        f"0{day}.01.2026,{n},v{n},Cup,{kind}\n0{day}.01.2026,POST,v{n},Postage,kauf\n"
        for day in (5, 6, 7)
        for n in range(5)
        for kind in ("klick", "kauf")
    )
    new_source("shop", raw(f"date,sku,visit,title,aktion\n{rows}"))
    told = new_ranker("x", "shop", "next_item")
    exclude = load_ranker("x").data.exclude
    assert exclude.items == ("POST",)
    assert told["next"] == "make night RANKER=x PARTITION=2026-01-07"
    assert any("POST: bought and never looked at" in doubt for doubt in told["not_understood"])


def test_a_first_shelf_does_not_offer_what_is_in_the_basket(here: Path, raw: Callable[..., str]) -> None:
    rows = "".join(
        f"0{day}.01.2026,{sku},v{day}{n},k{n},Cup {sku},kauf\n"
        for day in (5, 6, 7)
        for n in range(4)
        for sku in (1, 10 * day)  # of two things, one was bought before
    )
    new_source("shop", raw(f"date,sku,visit,customer,title,aktion\n{rows}"))
    new_ranker("x", "shop")
    ranker = load_ranker("x")
    assert ranker.kind == "next_item" and ranker.examples.repeat is False
    text = (here / "rankers" / "x.yaml").read_text()
    assert "here 50% of what returning customers took they had taken before" in text


@pytest.fixture
def raw(here: Path) -> Callable[..., str]:
    """Write one CSV file; its path."""

    def write(text: str) -> str:
        (here / "raw.csv").write_text(text)
        return f"{here}/raw.csv"

    return write


def test_the_first_day_is_tried_and_nothing_lands(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")  # a store that is asked would refuse
    answer = CliRunner().invoke(app, ["new", "source", "laden", "--files", german(here), "--json"])
    assert answer.exit_code == 0, answer.output
    tried = json.loads(answer.stdout.strip().splitlines()[-1])["check"]
    assert (tried["partition"], tried["rows"], tried["verdict"]) == ("2026-01-01", 45, "pass")
    assert tried["event_types"] == {"click": 15, "cart": 15, "purchase": 15}


def test_a_try_that_would_stop_the_day_says_so_and_keeps_the_file(
    here: Path, raw: Callable[..., str]
) -> None:
    rows = "".join(f"2026-01-05 09:00:0{n},,v,Cup\n" for n in range(9))
    command = [
        "new",
        "source",
        "shop",
        "--files",
        raw(f"seen,sku,visit,title\n2026-01-05 08:00:00,1,v,Cup\n{rows}"),
        "--json",
    ]
    answer = CliRunner().invoke(app, command)
    assert isinstance(answer.exception, DataError) and answer.exception.exit_code == 65
    tried = json.loads(answer.stdout.strip().splitlines()[-1])["check"]
    assert tried["verdict"] == "stop" and tried["known"]["item_id"] == 1
    assert (here / "sources" / "shop.yaml").is_file()


def test_a_draft_holds_no_value_of_a_column_that_nobody_uses(here: Path) -> None:
    """Which may be a person's: only what it looks like is said. Of those that are used, what a person typed is masked."""
    rows = [f"2026-01-01 09:{n:02}:00,v{n},click,sku{n % 9},cup for ann{n}@shop.example,Huber{n},ann{n}@shop.example,+44 20 7946 09{n:02}" for n in range(60)]  # fmt: skip
    header = "timestamp,session_id,event_type,item_id,item_title,delivery_note,contact,reachable"
    (here / "raw.csv").write_text("\n".join([header, *rows]) + "\n")
    told = new_source("shop", f"{here}/raw.csv")
    said = (here / "sources" / "shop.yaml").read_text() + json.dumps(told)
    assert all(f'not used: "{name}"' in said for name in ("delivery_note", "contact"))
    assert "cup for <e-mail>" in said
    assert not re.search(r"Huber\d|ann\d|shop\.example|7946", said), said
