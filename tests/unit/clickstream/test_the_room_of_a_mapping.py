"""A mapping file cannot leave its room: whatever it says in SQL, it reads the raw files of its source and nothing else."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reshelve.clickstream.database import confine, connect, database
from reshelve.clickstream.privacy import protect
from reshelve.errors import ConfigurationError
from reshelve.landing.mapping import map_catalogue, map_events
from reshelve.raw.sources import load_source
from reshelve.raw.statements import StatementError, allow_expression, allow_query, allow_type
from reshelve.settings import PROJECT, settings
from reshelve.validation.rules import load_rules

SECRET = "hunter2-of-another-room"
VARIABLE = "A_VARIABLE_OF_THE_PROCESS"
PLACES = (
    "event_date",
    "leave_out.it",
    "columns.item_id",
    "columns.user_id",
    "catalogue.item_id",
    "catalogue.title",
)


class Room:
    """A mapping over two raw files, beside a file that is none of its business."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.outside = directory / "outside" / "secret.csv"
        self.written = directory / "written.csv"
        self.path = directory / "clickstreams" / "shop.yaml"
        self.outside.parent.mkdir()
        self.outside.write_text(f"a\n{SECRET}\n")
        (directory / "raw.csv").write_text(
            "seen,visit,sku\n2026-01-01 09:00:00,v1,tea\n2026-01-01 10:00:00,v2,cup\n"
        )
        (directory / "products.csv").write_text("sku,name\ntea,Tea\ncup,Cup\n")
        self.path.parent.mkdir()

    def write(self, place: str = "", sql: str = "", **changes: Any) -> None:
        """The mapping file, with `sql` at `place`."""
        known: dict[str, Any] = {
            "name": "shop",
            "files": f"{self.directory}/raw.csv",
            "format": "csv",
            "columns": {"event_id": "md5(CAST(source AS VARCHAR))", "event_time": "seen", "event_type": "'click'", "item_id": "sku"},
            "catalogue": {"files": f"{self.directory}/products.csv", "format": "csv", "item_id": "sku", "title": "name"},
        }  # fmt: skip
        known |= changes
        *above, key = place.split(".")
        at = known
        for name in above:
            at = at.setdefault(name, {})
        if place:
            at[key] = sql
        self.path.write_text(yaml.safe_dump(known))

    def mapped(self) -> str:
        """All that the mapping makes, as a text."""
        with tempfile.TemporaryDirectory() as made, database(Path(made) / "land.duckdb") as db:
            mapping = load_source("shop")
            map_events(db, mapping, Path(made))
            map_catalogue(db, mapping, Path(made))
            tables = [db.execute(f"FROM {name}").fetchall() for name in ("events", "products", "left_out")]
            return " ".join(str(value) for rows in tables for row in rows for value in row)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path / "clickstreams"))
    monkeypatch.setenv(VARIABLE, SECRET)
    settings.cache_clear()
    return Room(tmp_path)


def as_query(attack: str) -> str:
    """What an expression would ask, as a query of rows."""
    return f"SELECT *, {attack} AS found FROM raw"


EXPRESSIONS = {
    "a file": "(SELECT max(a) FROM read_csv('{outside}'))",
    "a file by its name": "(SELECT max(a) FROM '{outside}')",
    "a file as text": "(SELECT content FROM read_text('{outside}'))",
    "a file as bytes": "(SELECT CAST(content AS VARCHAR) FROM read_blob('{outside}'))",
    "the raw file again": "(SELECT max(sku) FROM read_csv('{directory}/raw.csv'))",
    "a list of files": "(SELECT max(file) FROM glob('{directory}/*/*'))",
    "the environment": "(SELECT content FROM read_text('/proc/self/environ'))",
    "a variable": "getenv('" + VARIABLE + "')",
    "a file in a lambda": "list_transform([1], lambda x: (SELECT max(content) FROM read_text('{outside}')))[1]",
    "settings": "current_setting('temp_directory')",
    "settings as a table": "(SELECT max(value) FROM duckdb_settings())",
    "secrets": "(SELECT max(name) FROM duckdb_secrets())",
    "variables": "getvariable('inner_0')",
    "variables with a schema": "system.main.getvariable('inner_0')",
    "variables as a table": "(SELECT max(value) FROM duckdb_variables())",
    "a query in a text": "(SELECT max(a) FROM query('FROM read_csv(''{outside}'')'))",
    "a table by its name": "(SELECT max(item_id) FROM query_table('events'))",
    "another table": "(SELECT max(item_id) FROM events)",
    "the catalogue of tables": "(SELECT max(table_name) FROM information_schema.tables)",
    "the end of the cast": "1) FROM read_csv('{outside}') --",
    "the end of the brackets": "1) + (SELECT max(a) FROM read_csv('{outside}'",
    "another column": "1, (SELECT max(a) FROM read_csv('{outside}'))",
    "a second statement": "1; COPY (SELECT 1) TO '{written}'",
    "a second statement in brackets": "1); COPY (SELECT 1) TO '{written}'; SELECT (1",
    "a table that is changed": "(WITH x AS (DELETE FROM events RETURNING *) SELECT count(*) FROM x)",
    "a statement": "COPY (SELECT 1) TO '{written}'",
    "a setting": "SET enable_external_access = true",
    "a pragma": "(SELECT 1 FROM pragma_version())",
    "a description": "(SELECT max(column_name) FROM (DESCRIBE events))",
}  # fmt: skip
QUERIES = {
    "a second statement": "SELECT * FROM raw; COPY (SELECT 1) TO '{written}'",
    "copy": "COPY (SELECT 1) TO '{written}'",
    "attach": "ATTACH '{directory}/other.duckdb'",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "pragma": "PRAGMA database_list",
    "set": "SET enable_external_access = true",
    "call": "CALL pragma_version()",
    "create": "CREATE TABLE mine AS SELECT 1",
    "insert within": "WITH x AS (INSERT INTO raw VALUES (1) RETURNING *) SELECT * FROM x",
    "the end of the brackets": "SELECT * FROM raw) UNION ALL (SELECT * FROM read_csv('{outside}')",
    "a comment over the end": "SELECT * FROM raw /*",
    "a file by its name": "SELECT * FROM raw, '{outside}'",
    "a name that hides a file": "WITH t AS (SELECT 1) SELECT *, (SELECT max(content) FROM read_text('{outside}')) FROM raw, t",
    "summary": "SUMMARIZE raw",
    "another schema": "SELECT * FROM main.events",
}  # fmt: skip


def filled(attack: str, room: Room) -> str:
    for name in ("outside", "written", "directory"):
        attack = attack.replace("{" + name + "}", str(getattr(room, name)))
    return attack


@pytest.mark.parametrize("attack", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_no_expression_leaves_the_room(room: Room, attack: str) -> None:
    for place in PLACES:
        room.write(place, filled(attack, room))
        with pytest.raises(ConfigurationError, match=rf"shop\.yaml:\d+: {place}: ") as refused:
            room.mapped()
        assert SECRET not in str(refused.value)
    for place in ("rows", "catalogue.rows"):
        room.write(place, as_query(filled(attack, room)))
        with pytest.raises(ConfigurationError, match=rf"shop\.yaml:\d+: {place}: ") as refused:
            room.mapped()
        assert SECRET not in str(refused.value)
    assert not room.written.exists()


@pytest.mark.parametrize("attack", QUERIES.values(), ids=QUERIES)
def test_no_query_leaves_the_room(room: Room, attack: str) -> None:
    for place in ("rows", "catalogue.rows"):
        room.write(place, filled(attack, room))
        with pytest.raises(ConfigurationError, match=rf"shop\.yaml:\d+: {place}: ") as refused:
            room.mapped()
        assert SECRET not in str(refused.value)
    assert not room.written.exists()


@pytest.mark.parametrize(
    "attack",
    ["INT) + CAST(1 AS INT", "INT) FROM read_text('{outside}') --", "INT), (SELECT max(a) FROM '{outside}'", "INT)::DECIMAL(3"],
    ids=["more after it", "a table", "another column", "another cast"],
)  # fmt: skip
def test_no_type_leaves_the_room(room: Room, attack: str) -> None:
    for key in ("options", "catalogue.options"):
        room.write(f"{key}.types.sku", filled(attack, room))
        with pytest.raises(ConfigurationError, match=r"options\.types: .*is not a DuckDB type"):
            load_source("shop")


@pytest.mark.parametrize("key", ["delimiter", "quote", "escape", "comment"])
def test_no_option_is_sql(room: Room, key: str) -> None:
    if key == "delimiter":
        raw = room.directory / "raw.csv"
        raw.write_text(raw.read_text().replace(",", "'"))
    room.write(f"options.{key}", "'")
    assert "tea" in room.mapped()


NAMES = (
    "x', filename = '/etc/passwd",
    "\"; COPY (SELECT 1) TO 'x'; --",
    "sku') FROM read_text('/etc/passwd') --",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_reasons_are_no_sql(room: Room, name: str) -> None:
    room.write(
        options={
            "names": ["seen", "visit", name],
            "skip": 1,
            "header": False,
            "null_strings": [re.sub('[,"]', "", name)],
        },
        leave_out={name: "visit = 'v2'"},
        columns={"event_id": "visit", "event_time": "seen", "event_type": "'click'", "item_id": "visit"},
    )
    assert name in room.mapped()  # as the reason of the row that is left out


# --- the second wall: what the first let through would find nothing

STATEMENTS = {
    "a file": "SELECT * FROM read_csv('{outside}')",
    "a file by its name": "SELECT * FROM '{outside}'",
    "a way around": "SELECT * FROM read_csv('{directory}/raw.csv/../outside/secret.csv')",
    "a link": "SELECT * FROM read_csv('{directory}/scratch/link.csv')",
    "the environment": "SELECT * FROM read_text('/proc/self/environ')",
    "a variable": "SELECT getenv('" + VARIABLE + "')",
    "files": "SELECT * FROM glob('{directory}/*')",
    "a guess": "SELECT * FROM sniff_csv('{outside}')",
    "a variable of Python": "SELECT * FROM python_table",
    "copy": "COPY (SELECT 1) TO '{written}'",
    "over a raw file": "COPY (SELECT 1) TO '{directory}/raw.csv'",
    "attach": "ATTACH '{directory}/other.duckdb'",
    "export": "EXPORT DATABASE '{directory}/export'",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "external access": "SET enable_external_access = true",
    "one more path": "SET allowed_paths = ['{outside}']",
    "memory": "PRAGMA memory_limit = '100GB'",
    "reset": "RESET lock_configuration",
    "a log": "SET log_query_path = '{written}'",
    "profiling": "PRAGMA profiling_output = '{written}'",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_the_database_itself_opens_nothing_outside(room: Room, statement: str) -> None:
    python_table = [{"a": SECRET}]
    assert python_table
    scratch = room.directory / "scratch"
    scratch.mkdir()
    (scratch / "link.csv").symlink_to(room.outside)
    with database(room.directory / "land.duckdb") as db:
        confine(db, [room.directory / "raw.csv"], [scratch])
        assert db.execute(f"SELECT count(*) FROM read_csv('{room.directory}/raw.csv')").fetchone() == (2,)
        for connection in (db, db.cursor()):
            with pytest.raises(duckdb.Error) as refused:
                connection.execute(filled(statement, room)).fetchall()
            assert SECRET not in str(refused.value)
    assert not room.written.exists()


@pytest.mark.parametrize("maps", [map_events, map_catalogue])
def test_whoever_maps_is_within_the_room_from_then_on(room: Room, maps: Any) -> None:
    """The first wall let every expression of this mapping through: the second stands all the same."""
    room.write()
    scratch = room.directory / "scratch"
    scratch.mkdir()
    with database(scratch / "land.duckdb") as db:
        maps(db, load_source("shop"), scratch)
        for statement in (f"SELECT * FROM read_text('{room.outside}')", "SET memory_limit = '1GB'"):
            with pytest.raises(
                duckdb.Error, match=r"disabled by configuration|configuration has been locked"
            ):
                db.execute(statement)


def test_work_that_does_not_fit_into_memory_spills_within_the_room(tmp_path: Path) -> None:
    with database(tmp_path / "land.duckdb") as db:
        db.execute("SET memory_limit = '60MB'; SET threads = 1")
        confine(db, [], [tmp_path / "scratch"])
        db.execute(
            "CREATE TABLE events AS SELECT range AS a, md5(CAST(range AS VARCHAR)) AS b FROM range(2000000)"
        )
        db.execute("CREATE TABLE sorted AS SELECT * FROM events ORDER BY b")
        ((written,),) = db.execute("SELECT count(*) FROM sorted").fetchall()
    assert written == 2_000_000


def test_a_raw_file_behind_a_link_is_read(room: Room) -> None:
    (room.directory / "linked").symlink_to(room.directory)
    room.write(files=f"{room.directory}/linked/raw.csv")
    assert "tea" in room.mapped()


def test_a_raw_file_whose_name_is_a_pattern_is_within_the_room(room: Room) -> None:
    raw = room.directory / "raw.csv"
    (room.directory / "raw-3.csv").write_text(raw.read_text().replace("tea", SECRET))
    raw.rename(room.directory / "raw-[0-9].csv")
    room.write(files=f"{room.directory}/raw-[[]*.csv")
    made = room.mapped()
    assert "tea" in made and SECRET not in made


# --- keys


def test_no_expression_runs_where_the_keys_are(
    room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESHELVE_PSEUDONYM_KEYS", f"2026-01-01:{SECRET}")
    settings.cache_clear()
    room.write("columns.user_id", "visit")
    with database(tmp_path / "land.duckdb") as db:
        map_events(db, load_source("shop"), tmp_path)
        protect(db)
        ((hashed,),) = db.execute("SELECT count(*) FROM events WHERE length(user_id) = 32").fetchall()
        assert hashed == 2
        for connection in (db, db.cursor()):
            assert connection.execute("SELECT getvariable('inner_0'), getvariable('outer_0')").fetchone() == (
                None,
                None,
            )
            assert connection.execute("FROM duckdb_variables()").fetchall() == []


# --- files that are no raw files


@pytest.mark.parametrize("key", ["files", "catalogue.files"])
def test_keys_and_the_system_are_no_raw_files(room: Room, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    home = room.directory / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "signing.csv").write_text(f"sku,name\n{SECRET},x\n")
    (room.directory / "innocent.csv").symlink_to(home / "keys" / "signing.csv")
    monkeypatch.setenv("RESHELVE_HOME", str(home))
    settings.cache_clear()
    named = (f"{home}/keys/*.csv", f"{room.directory}/inno*.csv", "/proc/self/environ", "/etc/pass*")
    for path in named:
        room.write(key, path)
        with pytest.raises(ConfigurationError, match=rf"shop\.yaml:\d+: {key}: .* is in ") as refused:
            room.mapped()
        assert SECRET not in str(refused.value)


# --- what is allowed stays allowed


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "include" / "clickstreams").glob("**/*.yaml")), ids=lambda path: path.stem
)
def test_the_mappings_that_we_ship_stay_within_it(path: Path) -> None:
    shipped = yaml.safe_load(path.read_text())
    with connect() as db:
        for sql in (
            *shipped["columns"].values(),
            *shipped.get("leave_out", {}).values(),
            shipped.get("event_date"),
        ):
            if sql:
                allow_expression(db, sql)
        for part in (shipped, shipped.get("catalogue", {})):
            if "rows" in part:
                allow_query(db, part["rows"])
            for sql_type in part.get("options", {}).get("types", {}).values():
                allow_type(db, sql_type)


PIECES = st.sampled_from(
    ["(", ")", ";", "--", "/*", "*/", "'", '"', "$$", ",", "SELECT", "FROM", "UNION", "AS x", "raw", "sku", "1", "{outside}", "read_csv(",
     "COPY", "TO", "'{outside}'", "'{written}'", "read_text('{outside}')", "(SELECT max(content) FROM read_text('{outside}'))",
     "CAST(", "INT", "\n", "\0", "WITH t AS (", "lambda x:", "[", "]", "::", "getvariable('inner_0')", "SET x = 1", "ATTACH"]
)  # fmt: skip


@given(pieces=st.lists(PIECES, min_size=1, max_size=12))
def test_what_is_let_through_is_one_select_and_reads_nothing_outside(pieces: list[str]) -> None:
    with tempfile.TemporaryDirectory() as made, connect() as db:
        outside, written = Path(made) / "outside.csv", Path(made) / "written.csv"
        outside.write_text(SECRET)
        sql = " ".join(pieces).replace("{outside}", str(outside)).replace("{written}", str(written))
        db.execute("CREATE TABLE raw AS SELECT 'tea' AS sku")
        for allow, query in (
            (allow_expression, f"SELECT CAST(({sql}) AS VARCHAR) AS made FROM raw"),
            (allow_query, f"SELECT * FROM (WITH raw AS (FROM raw) SELECT * FROM (\n{sql}\n))"),
        ):
            try:
                allow(db, sql)
            except StatementError:
                continue
            assert len(duckdb.extract_statements(query)) == 1
            assert SECRET not in str(_answer(db, query))
            assert not written.exists()


def _answer(db: duckdb.DuckDBPyConnection, query: str) -> object:
    """Rows, or what is said of the query: a column that is not there is no matter here."""
    try:
        return db.execute(query).fetchall()
    except duckdb.Error as error:
        return error


# --- rule files hold SQL too


def test_a_rule_is_a_condition_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Room
) -> None:
    monkeypatch.setenv("RESHELVE_EXPECTATIONS_DIR", str(tmp_path / "rules"))
    settings.cache_clear()
    (tmp_path / "rules").mkdir()
    shipped = yaml.safe_load((PROJECT / "include" / "expectations" / "clickstream.yaml").read_text())
    path = tmp_path / "rules" / "clickstream.yaml"
    attacks = [sql for name, sql in EXPRESSIONS.items() if name != "another table"]
    for attack in attacks:
        rule = {
            "name": "asked",
            "description": "d",
            "severity": "quarantine",
            "check": "expression",
            "sql": filled(attack, room),
        }
        path.write_text(yaml.safe_dump({**shipped, "rules": [*shipped["rules"], rule]}))
        with pytest.raises(ConfigurationError, match="rule asked: sql: ") as refused:
            load_rules()
        assert SECRET not in str(refused.value)
    assert not room.written.exists()
