"""A kind in a package of its own, which this project does not know, has a night; one that nobody knows is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reshelve.compression.compress import compress
from reshelve.config.kind_names import kind_names
from reshelve.config.ranker import read_ranker
from reshelve.errors import ConfigurationError
from reshelve.evaluation.gate import gate
from reshelve.examples.build import build_examples
from reshelve.export.package import package
from reshelve.kind_registry import kind_of, stages_of
from reshelve.training.launch import train

PLUGGED = Path(__file__).with_name("toy_kind")
ROOT = Path(__file__).parents[3]
STAGES = {"examples": build_examples, "train": train, "compress": compress, "package": package, "gate": gate}
SIXTH = date(2011, 8, 6)


@pytest.fixture
def toy_kind(monkeypatch: pytest.MonkeyPatch) -> str:
    """Its package is where Python looks, here and in the training's processes; nothing else is done for it."""
    monkeypatch.syspath_prepend(PLUGGED)
    monkeypatch.setenv("PYTHONPATH", str(PLUGGED), prepend=os.pathsep)
    return "again"


@pytest.mark.slow
def test_a_kind_in_its_own_package_has_a_night(toy_kind: str, trading_shop: Any, small_bert: Path) -> None:
    assert toy_kind in kind_names()
    trading_shop.base = small_bert
    run = trading_shop.run(toy_kind, SIXTH, window_days=6)
    run = replace(run, ranker=run.ranker.with_values({"compression.steps": []}))
    results = {name: run.stage(name).commit(work(run)) for name, work in STAGES.items()}
    assert results["train"]["validation_metric"]["name"] == "recall@20"
    assert list(results["package"]["signature"]["serving_default"]["inputs"]) == ["seen"]
    assert results["gate"]["verdict"] and 0 < results["gate"]["queries"] <= results["examples"]["holdout"]


def test_a_kind_that_nobody_knows_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "shelf.yaml").write_text(
        "name: shelf\ntitle: A shelf\nkind: oracle\ndata: {source: shop}\ngates: {metric: recall@20}\n"
    )
    with pytest.raises(ConfigurationError, match=r"shelf\.yaml:3: kind: .*next_item, pair, search"):
        read_ranker("shelf", directory=tmp_path)
    with pytest.raises(ConfigurationError, match="no kind of ranker is called 'oracle'"):
        kind_of("oracle")


def test_a_kinds_own_stages_come_after_training() -> None:
    assert stages_of("search")[2:5] == ["train", "blend", "compress"]
    assert "blend" not in stages_of("pair")


def test_reading_a_ranker_file_imports_nothing_that_is_heavy() -> None:
    program = (
        "import sys; from reshelve.config.ranker import read_ranker; from reshelve.kind_registry import *\n"
        "for name in kind_names(): kind_of(read_ranker('search').kind).stages; kind_of(name).requests\n"
        "print([name for name in ('torch', 'tensorflow', 'duckdb', 'transformers') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "include")}
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert found.stdout.strip() == "[]", found.stderr


def test_nobody_but_a_kind_tells_kinds_apart() -> None:
    """By comparing with a kind's name: whoever does so would treat the next kind as one of the old."""
    names = "|".join(kind_names())
    compared = re.compile(
        rf"(==|!=|\bis|\bin|\bnot|\bcase)\W*[\"']({names})[\"']|[\"']({names})[\"']\s*(==|!=|in\b|is\b)"
    )
    found = []
    for folder in ("include/reshelve", "dags", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            if "kinds" in path.relative_to(ROOT).parts:
                continue
            lines = enumerate(path.read_text().splitlines(), 1)
            found += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in lines if compared.search(line)]
    assert not found, "\n".join(found)
