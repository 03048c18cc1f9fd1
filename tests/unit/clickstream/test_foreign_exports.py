"""First mapping files of exports in many languages, and in none that is known; local times; searches without a click."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from reshelve.cli import app
from reshelve.clickstream.database import connect
from reshelve.errors import ConfigurationError, DataError
from reshelve.landing.column_names import COLUMN_NAMES, EVENT_WORDS, NONE_OF_OURS
from reshelve.landing.column_roles import words
from reshelve.landing.mapping import map_events
from reshelve.landing.new_source import new_source
from reshelve.landing.trial import try_day
from reshelve.raw.sources import load_source
from reshelve.settings import settings

FIRST = datetime(2026, 1, 5, 0, 10)
FINNISH = ("aika", "asiakas", "kuitti", "tuote", "kuvaus", "määrä", "hinta")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for mapping files, and one for raw files."""
    (tmp_path / "sources").mkdir()
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path / "sources"))
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path


def orders(here: Path, header: tuple[str, ...], form: str = "%d-%m-%Y %H:%M") -> str:
    """A shop's lines of receipts: time, customer, receipt, item, title, pieces, price. Returns their path."""
    draw = random.Random(7)
    lines = [";".join(header)]
    for receipt in range(200):
        when = (FIRST + timedelta(minutes=7 * receipt)).strftime(form)
        for item in draw.sample(range(40), 3):
            pieces = draw.choice([1, 1, 2, 12])
            lines.append(
                f"{when};{500 + receipt % 60};{9000 + receipt};{item:05};Kuppi {item} sininen;{pieces};{item},50"
            )
    (here / "orders.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{here}/orders.csv"


def mapped(here: Path, source: str) -> list[dict[str, Any]]:
    with connect(here / "events.duckdb") as db:
        scratch = here / "scratch"
        scratch.mkdir()
        map_events(db, load_source(source), scratch)
        return db.sql("SELECT * FROM events ORDER BY row").to_arrow_table().to_pylist()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("Zeitpunkt Kundennr Beleg Artikelnummer Bezeichnung Menge Preis", id="German"),
        pytest.param("tijdstip klantnummer bon artikel omschrijving aantal prijs", id="Dutch"),
        pytest.param("horodatage client commande code_produit libellé quantité prix_unitaire", id="French"),
        pytest.param("fecha cliente pedido código_artículo descripción cantidad precio", id="Spanish"),
        pytest.param("data_ora utente scontrino codice_articolo descrizione quantità prezzo", id="Italian"),
        pytest.param("data klient paragon kod_produktu nazwa ilość cena", id="Polish"),
        pytest.param(
            "data_hora cliente encomenda código_produto descrição quantidade preço", id="Portuguese"
        ),
    ],
)
def test_headers_of_many_languages_are_known(here: Path, header: str) -> None:
    names = header.split()
    told = new_source("shop", orders(here, tuple(names)))
    roles = ("event_time", "user_id", "session_id", "item_id", "item_title", "quantity", "price")
    assert told["columns"] == dict(zip(roles, names, strict=True))
    assert not [doubt for doubt in told["not_understood"] if "a guess" in doubt]


def test_searches_of_another_language_are_known(here: Path) -> None:
    (here / "s.tsv").write_text(
        "sessie\tzoekterm\tgeklikt_artikel\ttijd\ns1\trode kop\t004\t2026-01-05T09:00:00+01:00\n"
        "s2\tkop\t005\t2026-01-05T09:01:00+01:00\n"
    )
    assert new_source("shop", f"{here}/s.tsv")["columns"] == {
        "session_id": "sessie", "query": "zoekterm", "item_id": "geklikt_artikel", "event_time": "tijd"
    }  # fmt: skip


@pytest.mark.parametrize("table", [COLUMN_NAMES, EVENT_WORDS, {"none": NONE_OF_OURS}])
def test_the_table_of_names_is_spelled_as_columns_are_read(table: dict[str, tuple[str, ...]]) -> None:
    for names in table.values():
        assert [name for name in names if words(name) != name or not name] == []


def test_columns_that_no_name_tells_are_guessed_by_their_values_and_said(here: Path) -> None:
    told = new_source("shop", orders(here, FINNISH))
    assert told["columns"] == {
        "event_time": "aika", "item_title": "kuvaus", "item_id": "tuote", "price": "hinta", "quantity": "määrä",
        "session_id": "kuitti",
    }  # fmt: skip
    for name in told["columns"].values():
        assert any(f"taken from {name} by its values" in doubt for doubt in told["not_understood"])
    text = (here / "sources" / "shop.yaml").read_text(encoding="utf-8")
    assert "Kuppi 1" not in text and "Aaaaa 9 aaaaaaa".lower() in text, "what was guessed may be a person's"
    assert '# not used: "asiakas": integer, 60 different in 600 rows, such as 999' in text
    assert {row["item_id"] for row in mapped(here, "shop")} == {f"{item:05}" for item in range(40)}
    assert try_day("shop")["verdict"] == "pass"


def test_few_rows_are_no_ground_for_a_guess_of_items(here: Path) -> None:
    (here / "a.csv").write_text(
        "aika;x;y\n05.01.2026 09:00:00;7;Iso kuppi\n05.01.2026 09:00:01;7;Iso kuppi\n"
    )
    assert new_source("shop", f"{here}/a.csv")["columns"] == {"event_time": "aika"}


def test_a_draft_without_a_time_is_still_written(here: Path) -> None:
    (here / "a.csv").write_bytes(
        "jälki|tuote|kuvaus\nA-17|0412|Köynnös, iso\nB-18|0413|Kuppi\n".encode("cp1252")
    )
    answer = CliRunner().invoke(app, ["new", "source", "shop", "--files", f"{here}/a.csv"])
    problem = answer.exception
    assert isinstance(problem, DataError) and problem.exit_code == 65
    assert "no column looks like the time" in problem.headline and "jälki, tuote, kuvaus" in problem.detail
    assert f"{here}/sources/shop.yaml was written" in problem.detail
    page, _, section = next(word for word in problem.detail.split() if ".md#" in word).partition("#")
    headings = [
        line.strip("# ").lower() for line in Path(page).read_text().splitlines() if line.startswith("#")
    ]
    assert section.replace("-", " ") in headings
    text = (here / "sources" / "shop.yaml").read_text(encoding="utf-8")
    for said in (
        "format: csv",
        'separated by "|"',
        '"encoding": "cp1252"',
        '# not used: "jälki": text, 2 different in 2 rows, such as a-99',
    ):
        assert said in text
    with pytest.raises(ConfigurationError, match="no expression for event_time"):
        load_source("shop")
    written = "event_time: TIMESTAMP '2026-01-05 09:00:00'  #"
    (here / "sources" / "shop.yaml").write_text(text.replace("# event_time:  #", written), encoding="utf-8")
    assert load_source("shop").options.encoding == "cp1252"
    assert len(mapped(here, "shop")) == 2


def test_a_product_list_that_is_not_understood_does_not_cost_the_draft(here: Path) -> None:
    (here / "p.csv").write_text("paino,koko\n" + "1.5,2.5\n" * 30)
    with pytest.raises(DataError, match="no column looks like item_id or item_title") as refused:
        new_source("shop", orders(here, FINNISH), f"{here}/p.csv")
    assert "was written" in refused.value.detail
    text = (here / "sources" / "shop.yaml").read_text(encoding="utf-8")
    assert "# catalogue:" in text and '# not used: "paino"' in text
    assert load_source("shop").catalogue is None


@pytest.mark.parametrize(
    ("form", "local"),
    [
        pytest.param("%d-%m-%Y %H:%M", True, id="a form of people"),
        pytest.param("%Y-%m-%d %H:%M:%S", True, id="ISO without an offset"),
        pytest.param("%Y-%m-%dT%H:%M:%SZ", False, id="UTC"),
        pytest.param("%Y-%m-%dT%H:%M:%S+01:00", False, id="an offset"),
        pytest.param("%s", False, id="seconds since 1970"),
    ],
)
def test_times_without_an_offset_are_asked_about(here: Path, form: str, local: bool) -> None:
    told = new_source(
        "shop", orders(here, ("time", "customer", "order", "sku", "title", "qty", "price"), form)
    )
    assert (
        any(
            "time: times have no offset: taken as UTC; set time_zone" in doubt
            for doubt in told["not_understood"]
        )
        == local
    )
    text = (here / "sources" / "shop.yaml").read_text(encoding="utf-8")
    assert ("# time_zone:" in text) == ("# event_time:" in text) == local
    assert load_source("shop").event_date is None, "the day of event_time in time_zone"


@pytest.mark.parametrize("form", ["%d-%m-%Y %H:%M", "%Y-%m-%d %H:%M:%S"])
def test_local_times_keep_their_day_when_the_drafts_two_lines_are_taken(here: Path, form: str) -> None:
    new_source("shop", orders(here, ("time", "customer", "order", "sku", "title", "qty", "price"), form))
    path = here / "sources" / "shop.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("  event_time:")]
    taken = "\n".join(kept).replace("# time_zone:", "time_zone:").replace("# event_time:", "event_time:")
    path.write_text(taken, encoding="utf-8")
    first = mapped(here, "shop")[0]
    assert (str(first["day"]), str(first["event_time"])) == ("2026-01-05", "2026-01-04 23:10:00")
    tried = try_day("shop")
    assert (tried["quarantined"], tried["days"], tried["verdict"]) == (0, 1, "pass")
    assert "of_other_days" not in tried


def test_an_event_date_of_other_clocks_is_said_before_rows_are_set_aside(here: Path) -> None:
    new_source(
        "shop",
        orders(
            here, ("time", "customer", "order", "sku", "title", "qty", "price"), "%Y-%m-%dT%H:%M:%S+01:00"
        ),
    )
    path = here / "sources" / "shop.yaml"
    day = "event_date: CAST(substr(time, 1, 10) AS DATE)\ncolumns:"  # by the shop's clocks
    path.write_text(path.read_text(encoding="utf-8").replace("columns:", day), encoding="utf-8")
    with capture_logs() as said:
        tried = try_day("shop")
    assert tried["of_other_days"] == tried["quarantined"] > 0
    warned = [each for each in said if each["log_level"] == "warning" and "time_zone" in each["event"]]
    assert [each["rows"] for each in warned] == [tried["of_other_days"]]
    path.write_text(
        path.read_text(encoding="utf-8").replace("event_date:", "time_zone: Europe/Berlin\nevent_date:")
    )
    tried = try_day("shop")
    assert tried["quarantined"] == 0 and "of_other_days" not in tried


def searches(here: Path, types: bool) -> str:
    rows = [
        {"time": f"2026-01-05T09:{n:02}:00Z", "session": f"s{n}", "query": "red cup", "title": "Cup, red", "sku": f"{n % 9:04}" if n % 4 else ""}
        | ({"event": "search_click"} if types else {})
        for n in range(60)
    ]  # fmt: skip
    (here / "s.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return f"{here}/s.jsonl"


@pytest.mark.parametrize("types", [False, True], ids=["no kinds of events", "kinds of events"])
def test_searches_without_a_choice_are_left_out_and_counted(here: Path, types: bool) -> None:
    told = new_source("shop", searches(here, types))
    assert any(
        "sku: unknown in 15 of 60 rows" in doubt and "left out: no item" in doubt
        for doubt in told["not_understood"]
    )
    tried = try_day("shop")
    assert (tried["left_out"], tried["rows"], tried["quarantined"], tried["verdict"]) == (
        {"no item": 15},
        45,
        0,
        "pass",
    )
