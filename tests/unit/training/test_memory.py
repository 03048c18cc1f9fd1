"""Training that cannot fit into memory is refused with numbers, and machines and containers say what there is."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reshelve.config.ranker import Training
from reshelve.errors import EXIT_CONFIGURATION, ConfigurationError
from reshelve.lineage.run import Run
from reshelve.machine_memory import most_memory
from reshelve.model.base import resolve_base
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore
from reshelve.training import memory
from reshelve.training.launch import train
from reshelve.training.memory import TrainingMemory

GIB = 2**30


def system(root: Path, **files: str) -> Path:
    for name, text in {
        "proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 5 kB\nSwapTotal: 1048576 kB\n",
        **files,
    }.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 17 * GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 17 * GIB),
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{4 * GIB}\n", "sys/fs/cgroup/memory.swap.max": "0\n"},
            4 * GIB,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{4 * GIB}\n"}, 5 * GIB),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
                "sys/fs/cgroup/a.slice/memory.max": f"{2 * GIB}\n", "sys/fs/cgroup/a.slice/memory.swap.max": "0\n",
            },
            2 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,memory:/docker\n1:name=systemd:/\n",
                "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": f"{3 * GIB}\n",
                "sys/fs/cgroup/memory/docker/memory.memsw.limit_in_bytes": f"{3 * GIB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            3 * GIB,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{40 * GIB}\n"}, 17 * GIB),
    ],
    ids=["no group", "no limit", "a container", "with swap", "a group above", "version 1", "more than there is"],
)  # fmt: skip
def test_memory_is_the_least_of_all_limits(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert most_memory(system(tmp_path, **files)) == expected


def test_this_system_says_what_it_has(tmp_path: Path) -> None:
    found = most_memory()
    assert found is not None and found > 100 * 2**20
    assert most_memory(tmp_path) is None


def test_what_is_foretold_is_near_what_was_measured() -> None:
    """20 kB a product at a width of 384, batches of 32."""
    found = TrainingMemory.of(384, 1_100_000, Training())
    assert 17e9 < found.most < 24e9 and 0.5 * found.most < found.least < 0.75 * found.most
    twice = TrainingMemory.of(384, 1_100_000, Training(processes=2, average="ema", patience=2))
    assert twice.least == 2 * found.least and twice.most > 2.4 * found.most


def test_titles_take_a_tenth_of_a_softmax() -> None:
    softmax = TrainingMemory.of(384, 1_000_000, Training())
    titles = TrainingMemory.of(384, 1_000_000, Training(), vector_size=128)
    assert 1.0e9 < titles.least < 0.1 * softmax.least and titles.least < titles.most < 0.25 * softmax.most


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path) -> Run:
    return Run(load_ranker("recommend"), date(2011, 8, 30), store, tmp_path / "work")


def test_a_night_without_room_is_refused_before_its_first_step(run: Run) -> None:
    base = resolve_base(run.ranker.model.base, run.store)
    items = int(most_memory() or 0) // (16 * 769) + 1000
    (run.stage("examples").directory / "base.json").write_text(json.dumps(base.record()))
    run.stage("examples").commit({"items": items})
    with pytest.raises(
        ConfigurationError, match=rf"training on {items:,} products takes at least .* GB of memory"
    ) as refused:
        train(run)
    assert refused.value.exit_code == EXIT_CONFIGURATION
    assert "(data.catalogue_days, data.exclude)" in refused.value.detail
    assert not (run.stage("train").directory / ".spec.json").exists()


def test_a_warning_where_it_is_near_and_nothing_elsewhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve_base(run.ranker.model.base, run.store).path
    run.stage("examples").commit({"items": 100_000})
    need = TrainingMemory.of(384, 100_000, run.ranker.training)
    for most, jobs, warnings in ((need.most * 2, 1, 0), (need.most * 2, 2, 1), (need.most, 1, 1)):
        monkeypatch.setattr(memory, "most_memory", lambda most=most: most)
        with capture_logs() as lines:
            memory.check_memory(run, run.ranker, base, jobs)
        assert sum(line["log_level"] == "warning" for line in lines) == warnings, (most, jobs)
