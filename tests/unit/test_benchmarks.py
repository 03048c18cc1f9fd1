"""No benchmark leaves a process behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from reshelve.processes import wait_until
from reshelve.settings import PROJECT

pytestmark = pytest.mark.slow  # real stores and real children

PUBLISH = ["bench_publish.py", "--megabytes=200", "--rounds=50"]
VALIDATE = ["bench_validate.py", "--rows=20000"]


def commands_of(mark: str) -> dict[int, str]:
    """The live processes whose place for temporary files is the mark: pid and command line."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.parametrize(
    ("command", "child", "number"),
    [
        pytest.param(PUBLISH, "weed", signal.SIGTERM, id="its store, asked to end"),
        pytest.param(PUBLISH, "weed", signal.SIGINT, id="its store, interrupted"),
        pytest.param(PUBLISH, "weed", signal.SIGKILL, id="its store, killed"),
        pytest.param(VALIDATE, "--child", signal.SIGTERM, id="a measured child, asked to end"),
    ],
)
def test_a_benchmark_that_is_stopped_leaves_nothing(
    tmp_path: Path, command: list[str], child: str, number: signal.Signals
) -> None:
    mark = str(tmp_path)
    environment = {**os.environ, "TMPDIR": mark}
    script = [sys.executable, str(PROJECT / "benchmarks" / command[0]), *command[1:]]
    benchmark = subprocess.Popen(
        script,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # tests behind a shell's `&` ignore it
    )
    try:
        wait_until(
            lambda: any(child in one for one in commands_of(mark).values()), 60, f"{child} of {command[0]}"
        )
        benchmark.send_signal(number)
        benchmark.wait(120)
        wait_until(lambda: not commands_of(mark), 20, f"the end of {commands_of(mark)}")
        if number is not signal.SIGKILL and command is PUBLISH:
            assert not list(tmp_path.iterdir()), "what is thrown away at the end stays"
    finally:
        for pid in commands_of(mark):
            os.kill(pid, signal.SIGKILL)
        benchmark.wait()


def in_benchmarks(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A script run as a benchmark is: from their folder, without a platform's settings."""
    ours = ("RESHELVE_", "AWS_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT / "benchmarks",
        env=bare | {"TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_store_whose_making_is_interrupted_ends_before_it_is_thrown_away(tmp_path: Path) -> None:
    """The signal comes before anybody knows the process of the store, which writes until it ends."""
    told = in_benchmarks(
        "import os, signal, subprocess, tempfile\n"
        "import psutil\n"
        "from own_store import own_store\n"
        "class Interrupted(subprocess.Popen):\n"
        "    def __init__(self, command, **kwargs):\n"
        "        super().__init__(command, **kwargs)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "class Scratch(tempfile.TemporaryDirectory):\n"
        "    def __exit__(self, *raised):\n"
        "        print('at work:', sum(one.status() != 'zombie' for one in psutil.Process().children()))\n"
        "        super().__exit__(*raised)\n"
        "subprocess.Popen, tempfile.TemporaryDirectory = Interrupted, Scratch\n"
        "with own_store(None, 'bench'):\n"
        "    pass\n",
        tmp_path,
    )
    assert told.returncode == 143, told.stderr[-2000:]
    assert told.stdout.splitlines()[-1] == "at work: 0"
    assert not list(tmp_path.iterdir())


def test_what_a_benchmark_publishes_is_signed_and_can_be_read(tmp_path: Path) -> None:
    told = in_benchmarks(
        "from own_store import own_store\n"
        "from reshelve.store.signatures import trust\n"
        "with own_store(None, 'bench'):\n"
        "    print(len(trust().keys))\n",
        tmp_path,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert int(told.stdout.split()[-1]) == 4


def test_what_nights_gave_becomes_a_table_and_a_json_line(tmp_path: Path) -> None:
    told = in_benchmarks(
        "from datetime import date\n"
        "from quality_night import Night\n"
        "from quality_report import report\n"
        "from reshelve.examples.formats import HoldoutQuery\n"
        "from reshelve.pipeline.references import load_ranker\n"
        "asked = [HoldoutQuery(f'q{n}', f'text {n}', ['a'], 1.0, f'c{n}') for n in range(40)]\n"
        "first, second = [['a', 'b']] * 40, [['b', 'a']] * 40\n"
        "ranked = {'reshelve': first, 'network': first, 'bm25': second}\n"
        "spent = {'train': 1.0, 'blend': 1.0}\n"
        "night = Night(date(2011, 9, 26), asked, ranked, [[1.0, 0.0]] * 40, spent, 100)\n"
        "report(load_ranker('search'), [('2011-09-26', night)])\n",
        tmp_path,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    line = json.loads(told.stdout.splitlines()[-1])
    assert line["metrics"]["reshelve"]["map@5"] == 1.0
    assert line["differences"]["bm25"]["value"] == pytest.approx(0.5)
    assert line["value"] == 1.0
    assert "'.[bench]'" in told.stdout + told.stderr
