"""Temporary directories for rows of people: in one place, held while somebody works in them, and told apart from what is left."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from reshelve.clickstream.database import connect
from reshelve.pipeline.personal_data import SCRATCH_OF
from reshelve.processes import wait_until
from reshelve.scratch import abandoned, scratch
from reshelve.settings import PROJECT, settings

PACKAGE = PROJECT / "include" / "reshelve"
MAKERS = {"TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkdtemp", "mkstemp", "gettempdir"}  # fmt: skip
ELSEWHERE = {
    "scratch.py": "itself",
    "modelserver/local_server.py": "a list of models and a log, of no rows",
    "platform/serving.py": "the name of a socket, where the home is too long for one",
    "pipeline/refresh.py": "a product list, of no rows",
    "kinds/search/blend_stage.py": "the spill, in the run's own work directory",
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))
    settings.cache_clear()


def test_it_is_gone_at_the_end_and_nobodys_to_delete_before() -> None:
    with scratch("land") as one, scratch("land") as other:
        assert one.parent == settings().work and one != other
        os.utime(one / ".held", (0, 0))
        assert abandoned("land") == []
    assert list(settings().work.iterdir()) == []


def test_what_a_killed_process_left_is_told_from_what_is_in_use() -> None:
    code = "import os, time\nfrom reshelve.scratch import scratch\nwith scratch('land') as made:\n    (made / 'rows').touch()\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code]) as killed, scratch("land"):
        wait_until(lambda: bool(list(settings().work.glob("land-*/rows"))), 30, "its directory")
        (left,) = [path.parent for path in settings().work.glob("land-*/rows")]
        os.utime(left / ".held", (0, 0))
        assert abandoned("land") == []
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert abandoned("land") == [left] and abandoned("try") == []


def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in the package: file, the called name, the call."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                found.append((path.relative_to(PACKAGE).as_posix(), name, node))
    return found


def test_nobody_makes_a_temporary_place_of_their_own() -> None:
    """One that the list of personal data does not know is one that nothing clears."""
    made = {file for file, name, _ in calls() if name in MAKERS}
    assert made == ELSEWHERE.keys()


def test_every_use_is_in_the_list_of_personal_data() -> None:
    named = {ast.literal_eval(call.args[0]) for file, name, call in calls() if name == "scratch"}
    assert named and named == SCRATCH_OF.keys() - {"bench"}  # benchmarks make theirs themselves


def test_a_database_in_memory_writes_nothing_where_it_happens_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with connect() as db:
        db.execute("SET memory_limit = '60MB'; SET threads = 1")
        with pytest.raises(duckdb.OutOfMemoryException):
            db.execute(
                "CREATE TABLE a AS SELECT md5(CAST(range AS VARCHAR)) AS b FROM range(4000000) ORDER BY b"
            )
        assert not list(tmp_path.glob("*.spill"))


def test_every_database_is_opened_in_the_one_way() -> None:
    """Which bounds its memory, and takes no secret, extension or variable from whoever opens it."""
    opened = {
        file
        for file, name, call in calls()
        if name == "connect"
        and isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func) == "duckdb.connect"
    }
    assert opened == {"clickstream/database.py"}
