"""Verbs as child processes: log, result, exit codes, and nothing left behind. Real processes throughout."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from reshelve_airflow.approval import ReleaseOperator
from reshelve_airflow.child import Child, Outcome, verb_command
from reshelve_airflow.verb import ResumingOperator, checked, small

pytestmark = pytest.mark.slow  # starts processes


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def runs(pid: int) -> bool:
    """Whether the process really runs; one that waits to be reaped does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class TaskInstance:
    """What a task hands on."""

    def __init__(self, try_number: int = 1) -> None:
        self.try_number, self.max_tries = try_number, 2
        self.handed_on: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.handed_on[key] = value


def context(try_number: int = 1) -> Any:
    return {
        "ti": TaskInstance(try_number),
        "dag": SimpleNamespace(params={}),
        "dag_run": SimpleNamespace(conf={}),
        "params": {},
    }


def run(code: str) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    return Child(python(code)).run(lines.append), lines


def test_options_become_one_word_each() -> None:
    command = verb_command(
        "tune ask", {"ranker": "search", "dry-run": False, "to": None, "set": ["a=1", "b=-2"], "reason": "-x"}
    )
    assert command[3:] == [
        "tune",
        "ask",
        "--ranker=search",
        "--no-dry-run",
        "--set=a=1",
        "--set=b=-2",
        "--reason=-x",
        "--json",
    ]


def test_stderr_is_the_log_and_stdout_the_result() -> None:
    outcome, lines = run(
        "import sys; print('one', file=sys.stderr); print('two', end='', file=sys.stderr); print('{\"a\": 1}')"
    )
    assert lines == ["one", "two"]
    assert outcome.result == {"a": 1}
    assert checked(outcome, "x", context()) == {"a": 1}


def test_lines_arrive_while_the_process_runs(tmp_path: Path) -> None:
    end = tmp_path / "end"
    os.mkfifo(end)
    code = f"import sys; print('x', file=sys.stderr, flush=True); open({str(end)!r}).read()"
    outcome = Child(python(code)).run(lambda _: end.write_text(""))  # it waits for this, and would for ever
    assert outcome.code == 0


def test_a_megabyte_on_both_pipes_does_not_block() -> None:
    outcome, lines = run(
        "import sys; sys.stderr.write('y' * 1000000 + '\\n'); print('{\"n\": \"' + 'x' * 1000000 + '\"}')"
    )
    assert len(lines[0]) == len((outcome.result or {})["n"]) == 1_000_000


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        pytest.param(65, AirflowFailException, "row 3 is bad", id="data: never again"),
        pytest.param(73, AirflowFailException, "row 3 is bad", id="partly done: never again"),
        pytest.param(78, AirflowFailException, "row 3 is bad", id="configuration: never again"),
        pytest.param(75, AirflowException, "row 3 is bad", id="try again"),
        pytest.param(1, AirflowException, "row 3 is bad", id="a crash is tried again"),
    ],
)
def test_exit_codes_say_whether_to_retry(code: int, error: type[Exception], said: str) -> None:
    outcome, _ = run(f"import sys; print('reshelve: row 3 is bad', file=sys.stderr); sys.exit({code})")
    asked = context()
    with pytest.raises(error, match=said) as raised:
        checked(outcome, "validate", asked)
    assert asked["ti"].handed_on == {"exit_code": code}
    assert isinstance(raised.value, AirflowFailException) == (code in (65, 73, 78))
    assert outcome.may_retry == (code not in (65, 73, 78))


def test_a_real_verb_with_a_wrong_ranker_fails_for_good_with_its_headline() -> None:
    lines: list[str] = []
    outcome = Child(verb_command("examples", {"ranker": "nothing", "partition": "2011-08-30"})).run(
        lines.append
    )
    with pytest.raises(AirflowFailException, match="no ranker 'nothing'"):
        checked(outcome, "examples", context())


@pytest.mark.parametrize("verb", ["release", "rollback"])
@pytest.mark.parametrize(("tries", "said"), [(1, "--no-resume"), (2, "--resume")])
def test_a_retry_says_that_it_is_one(tries: int, said: str, verb: str) -> None:
    """So that what a person took back between two tries is not offered again, and what was gone back from stays so."""
    made = ReleaseOperator if verb == "release" else ResumingOperator
    options = {"ranker": "nothing", "version" if verb == "release" else "to": 1}
    operator = made(task_id=verb, verb=verb, options=options)
    with pytest.raises(AirflowFailException, match="no ranker 'nothing'"):
        operator.execute(context(tries))
    assert operator._child is not None and said in operator._child.command


def test_no_json_is_no_success() -> None:
    outcome, _ = run("print('hello')")
    with pytest.raises(AirflowException, match="no JSON object"):
        checked(outcome, "x", context())


def test_a_killed_process_is_named_by_its_signal() -> None:
    outcome, _ = run("import os; os.kill(os.getpid(), 9)")
    assert outcome.code == -signal.SIGKILL
    assert outcome.headline == "the process was ended by SIGKILL"


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
kid = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
same = subprocess.Popen([sys.executable, "-c", kid])
other = subprocess.Popen([sys.executable, "-c", kid], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {same.pid} {other.pid}")
time.sleep(600)
"""


def test_kill_ends_a_stubborn_family_in_every_session(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    child = Child([*python(FAMILY), str(note)])
    thread = threading.Thread(target=lambda: child.run(lambda _: None))
    thread.start()
    while not note.exists() or len(note.read_text().split()) < 3:
        time.sleep(0.05)
    family = [int(pid) for pid in note.read_text().split()]
    child.kill()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert not [pid for pid in family if runs(pid)]


def test_an_exception_in_the_task_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "pids"

    def fail(_: str) -> None:
        raise TimeoutError  # what a time-out of Airflow does: raise in the middle of execute

    code = f"import os, sys, time; open({str(note)!r}, 'w').write(str(os.getpid())); print('x', file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(TimeoutError):
        Child(python(code)).run(fail)
    assert not runs(int(note.read_text()))


def test_what_a_process_leaves_behind_does_not_hold_the_task(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(note)!r}, 'w').write(str(p.pid)); print('{{}}')"
    )
    outcome, _ = run(code)
    assert outcome.code == 0
    assert not runs(int(note.read_text()))


def test_only_small_things_go_to_xcom() -> None:
    kept = small({"verdict": "promote", "history": ["x" * 100] * 10_000})
    assert kept == {"verdict": "promote"}
