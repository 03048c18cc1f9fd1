"""Searches of a small shop, each written by the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pytest
from tests.searched import searched

from reshelve.clickstream.remember import EVERYTHING
from reshelve.features.tables import Corpus, Searches
from reshelve.lineage.run import Result, Run
from reshelve.store.objects import ObjectStore

TODAY = date(2011, 8, 30)
# Days before TODAY (1 is yesterday), item, weight, query.
Row = tuple[int, int, float, str]


@pytest.fixture(scope="session")
def today() -> date:
    """The instant that is remembered."""
    return TODAY


@pytest.fixture(scope="session")
def searches_of() -> Callable[..., Searches]:
    """`searches_of((1, 0, 2.0, "red cup"), …)`: yesterday item 0 was chosen under `red cup`, with weight 2."""

    def made(*rows: Row) -> Searches:
        ago, items, weights, queries = zip(*rows, strict=True) if rows else ((), (), (), ())
        days = [TODAY.toordinal() - number for number in ago]
        return searched(queries, items, days, weights)

    return made


@pytest.fixture(scope="session")
def corpus_of(searches_of: Callable[..., Searches]) -> Callable[..., Corpus]:
    """`corpus_of(titles, *rows)`."""
    return lambda titles, *rows: Corpus(searches_of(*rows), titles, EVERYTHING)


class Kept:
    """What a bucket held after work that several tests of a file begin with: done once, copied for each."""

    def __init__(self, directory: Path) -> None:
        self._objects: dict[str, bytes] = {}
        self._stages: dict[str, Result] = {}
        self._directory = directory

    def fill(self, store: ObjectStore, work: Callable[[], object]) -> None:
        """Leave the store as `work` does; it is done the first time only."""
        if self._objects:
            for key, body in self._objects.items():
                store.put(key, body)
            return
        work()
        for key, _ in store.list(""):
            found = store.get(key)
            assert found is not None
            self._objects[key] = found.body

    def stages(
        self, run: Run, work: Mapping[str, Callable[[Run], Result]], what: str = ""
    ) -> dict[str, Result]:
        """Do these stages of a run, or copy what they left of an earlier run that is called `what` too."""
        return {name: self._stage(run, name, of_stage, f"{name}-{what}") for name, of_stage in work.items()}

    def _stage(self, run: Run, name: str, work: Callable[[Run], Result], called: str) -> Result:
        stage, kept = run.stage(name), self._directory / called
        if called in self._stages:
            shutil.copytree(kept, stage.directory, dirs_exist_ok=True)
            return stage.commit(self._stages[called])
        self._stages[called] = stage.commit(work(run))
        shutil.copytree(stage.directory, kept)
        return self._stages[called]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """One for each file of tests."""
    return Kept(tmp_path_factory.mktemp("kept"))
