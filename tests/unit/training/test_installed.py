"""An environment without Horovod, as `pip install -r requirements.txt` leaves it, says which script to run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from reshelve.config.ranker import Ranker
from reshelve.errors import EXIT_CONFIGURATION, ConfigurationError
from reshelve.lineage.run import Run
from reshelve.settings import PROJECT
from reshelve.store.objects import ObjectStore
from reshelve.training.installed import need_horovod
from reshelve.training.launch import train
from reshelve.tuning.history import TrialHistory
from reshelve.tuning.trial import Status
from reshelve.tuning.tune import ask, evaluate


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path, make_ranker: Callable[..., Ranker]) -> Run:
    return Run(make_ranker("next_item"), date(2011, 8, 30), store, tmp_path / "work")


@pytest.fixture
def without_horovod(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in sys.modules is Python's own way to say that there is no such module."""
    monkeypatch.setitem(sys.modules, "horovod", None)


@pytest.fixture
def horovod_without_torch(tmp_path: Path) -> Path:
    """A directory for PYTHONPATH: `pip install horovod` on a host without torch leaves the package without its library."""
    (tmp_path / "site" / "horovod" / "torch").mkdir(parents=True)
    for package in ("horovod", "horovod/torch"):
        (tmp_path / "site" / package / "__init__.py").touch()
    return tmp_path / "site"


def test_the_installed_one_is_found() -> None:
    need_horovod()


@pytest.mark.usefixtures("without_horovod")
def test_training_names_the_script_before_it_does_anything(run: Run) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Horovod is not installed: .* run scripts/setup\.sh"
    ) as told:
        train(run)
    scripts = [word for word in str(told.value).split() if word.startswith("scripts/")]
    assert len(scripts) == 2
    assert all(os.access(PROJECT / script, os.X_OK) for script in scripts)
    assert not run.work.exists()


def test_a_search_does_not_count_it_against_a_trial(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = ask(run)["trials"]
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(ConfigurationError, match="Horovod is not installed"):
        evaluate(run, first)
    trial = TrialHistory(run).trial(first)
    assert (trial.status, trial.attempts) == (Status.ASKED, 0)


@pytest.mark.slow
def test_a_night_asks_before_it_starts_the_platform(horovod_without_torch: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = f"{horovod_without_torch}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "reshelve.cli", "platform", "run"],
        env={**os.environ, "PYTHONPATH": path, "RESHELVE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_CONFIGURATION, done.stderr
    assert "without torch support: pip alone cannot build it, run scripts/setup.sh" in done.stderr
    assert not home.exists()
