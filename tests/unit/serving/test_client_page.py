"""The examples of docs/how-to/python-client.md, run against a real model server."""

from __future__ import annotations

import asyncio
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.planted import build_graphs

from reshelve.protocol import server_errors
from reshelve.protocol.model_config import ModelEntry, write_config
from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = (PROJECT / "docs" / "how-to" / "python-client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
VERSION = 20110830001


def test_the_examples_run(
    host: Any, store: ObjectStore, publish: Any, make_stable: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RESHELVE_PSEUDONYM_KEYS", "2011-01-01:a secret of more than sixteen letters")
    settings.cache_clear()
    shutil.copytree(build_graphs(tmp_path)["good"], host.models / "recommend" / str(VERSION))
    assert publish(date(2011, 8, 30), "no_model") == VERSION
    make_stable(store, "recommend", VERSION)
    labels = {"stable": VERSION}
    write_config(
        host.models, [ModelEntry("recommend", host.models / "recommend", frozenset(labels.values()), labels)]
    )
    host.start_server()
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(compile(example.replace("127.0.0.1:8500", host.grpc), "python-client.md", "exec"), names)

    printed = capsys.readouterr().out.splitlines()[-5:]  # logs come before
    assert [line.split()[:2] for line in printed] == [[str(VERSION), f"i{n}"] for n in range(5)]
    assert names["by_label"].version == names["by_number"].version == VERSION
    with names["logging_caller"]() as ranker:
        assert asyncio.run(names["recommend"](ranker, ["a", "b"], "visit")).version == VERSION
        assert ranker.ready()
        # This version takes a history, not a query: the page shows what it has.
        assert names["shelf"](ranker, "red mug", "visit", ["best seller"]) == ["best seller"]
        assert ranker.log is not None


def test_every_error_is_on_the_page() -> None:
    errors = {name for name in vars(server_errors) if name.endswith("Error") and name != "ConfigurationError"}
    assert len(errors) == 7  # TryAgainError among them
    assert all(f"`{error}`" in PAGE for error in errors)
