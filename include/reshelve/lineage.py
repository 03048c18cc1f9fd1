"""The identity of a night's work, and the workspace that makes a retry resume instead of starting again.

ranker + partition + digest of the spec + code version name a run. Each stage of it has a directory on
this machine (a cache) and the same files on S3; its `result.json`, written last, is what makes it done.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from reshelve.errors import AlreadyRunningError, ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.rankers import Ranker
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, object_store

STAGES = ("examples", "tune", "train", "blend", "compress", "package", "gate", "publish")

Result = dict[str, Any]


@lru_cache(maxsize=1)
def code_version() -> str:
    """The first 12 hex digits of the sha256 of this package's source: the same on every host with the same code."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def parse_partition(text: str) -> date:
    """`YYYY-MM-DD` as a date. Raises ConfigurationError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no partition", "expected YYYY-MM-DD") from error


@dataclass(frozen=True)
class Run:
    """One ranker on one partition."""

    ranker: Ranker
    partition: date
    store: ObjectStore
    work: Path
    # Where it goes on as it began (`pinned_night`): its digest, and the record of a base that is a directory.
    begun: str | None = None
    base: dict[str, Any] | None = None

    @classmethod
    def of(cls, ranker: Ranker, partition: date) -> Run:
        """The run in this process's store and work directory."""
        return cls(ranker, partition, object_store(), settings().work)

    @cached_property
    def digest(self) -> str:
        """12 hex digits over spec and code."""
        return (
            self.begun or hashlib.sha256(f"{self.ranker.digest()}:{code_version()}".encode()).hexdigest()[:12]
        )

    @property
    def id(self) -> str:
        """`recommend/2011-08-30/1a2b3c4d5e6f`: also the key prefix below `runs/`."""
        return f"{self.ranker.name}/{self.partition.isoformat()}/{self.digest}"

    @property
    def prefix(self) -> str:
        """The run's key prefix on S3."""
        return f"runs/{self.id}"

    def stage(self, name: str) -> Stage:
        """One stage's workspace."""
        return Stage(self, name)


@dataclass(frozen=True)
class Stage:
    """The workspace of one stage: a local directory, its copy on S3, and the result that commits it."""

    run: Run
    name: str

    @property
    def directory(self) -> Path:
        """The local directory (made where missing). Names that begin with a dot are never uploaded."""
        path = self.run.work / self.run.id / self.name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def prefix(self) -> str:
        """The stage's key prefix on S3."""
        return f"{self.run.prefix}/{self.name}"

    def result(self) -> Result | None:
        """What the stage answered, or None while it is not done."""
        found = self.run.store.get_json(f"{self.prefix}/result.json")
        return None if found is None else dict(found)

    def required(self) -> Result:
        """The result. Raises TryAgainError where the stage has not been done."""
        found = self.result()
        if found is None:
            raise TryAgainError(f"{self.run.id}: stage {self.name} is not done", "run the stages in order")
        return found

    def files(self) -> Path:
        """The directory of a stage that is done, with its files, fetched from S3 where this machine lacks them."""
        result = self.required()
        marker = self.directory / ".complete"
        if not marker.is_file() or marker.read_text() != _canonical(result):
            self.run.store.download_directory(self.prefix, self.directory)
            marker.write_text(_canonical(result))
        return self.directory

    def commit(self, result: Result) -> Result:
        """Upload the directory, then the result: the stage is done."""
        result = json.loads(json.dumps(result))
        (self.directory / "result.json").unlink(missing_ok=True)
        self.run.store.upload_directory(self.directory, self.prefix)
        self.run.store.put_json(f"{self.prefix}/result.json", result)
        (self.directory / ".complete").write_text(_canonical(result))
        return result

    def clear(self) -> None:
        """Empty the local directory."""
        shutil.rmtree(self.directory)

    @contextmanager
    def lock(self, wait_seconds: float = 30) -> Iterator[None]:
        """Hold this stage on this machine, so that a retry never runs beside what it retries.

        Raises AlreadyRunningError when another live process holds it for longer than `wait_seconds`.
        """
        path = self.run.work / self.run.id / f".{self.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        with path.open("w") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise AlreadyRunningError(
                            f"{self.run.id}: stage {self.name} is being done by another process"
                        ) from error
                    time.sleep(0.2)
            yield


def run_stage(run: Run, name: str, work: Callable[[Run], Result]) -> Result:
    """Do a stage once: a result that is there is given back (`reused`), two processes never do it at once."""
    stage = run.stage(name)
    log = logger(stage=name, run=run.id)
    with stage.lock():
        found = stage.result()
        if found is not None:
            log.info("already done, reused")
            return {**found, "reused": True}
        started = time.monotonic()
        log.info("started")
        result = stage.commit({**work(run), "seconds": round(time.monotonic() - started, 1), "run": run.id})
        log.info("done", seconds=result["seconds"])
    return {**result, "reused": False}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
