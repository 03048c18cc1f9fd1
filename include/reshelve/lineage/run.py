"""The identity of a night's work, and the workspace that makes a retry resume instead of starting again.

ranker + partition + digest of the spec + code version name a run. Each stage of it has a directory on
this machine (a cache) and the same files on S3; its `result.json`, written last, is what makes it done. A result that
another run of the day has made, of the same `StageIdentity`, is taken over: its `result.json` is copied, its files stay there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from reshelve.config.ranker import Ranker
from reshelve.errors import AlreadyRunningError, ConfigurationError, DataError, TryAgainError
from reshelve.files import take_lock
from reshelve.lineage.record import read_record, write_record
from reshelve.lineage.results import StageResult
from reshelve.lineage.stage import StageIdentity
from reshelve.logs import logger
from reshelve.settings import settings
from reshelve.store.layout import run_folder
from reshelve.store.objects import ObjectStore, object_store

_A_NIGHT = 12 * 60 * 60  # seconds that a run waits for another that does the very same stage

Result = dict[str, Any]
EXPIRED = "expired.json"
R = TypeVar("R", bound=StageResult)

IdentityOf = Callable[["Run"], StageIdentity | None]
"""A stage's identity in a run; None where it is the run's alone."""


@lru_cache(maxsize=1)
def code_version() -> str:
    """The first 12 hex digits of the sha256 of this package's source: the same on every host with the same code."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def parse_partition(text: str) -> date:
    """`YYYY-MM-DD` as a date. Raises ConfigurationError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not a partition", "expected YYYY-MM-DD") from error


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
        return run_folder(self.id).removesuffix("/")

    def stage(self, name: str) -> StageWorkspace:
        """One stage's workspace."""
        return StageWorkspace(self, name)


@dataclass(frozen=True)
class StageWorkspace:
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
        """The stage's own key prefix on S3; see `kept_prefix` for where the files of one that is done are."""
        return f"{self.run.prefix}/{self.name}"

    @property
    def kept_prefix(self) -> str:
        """Where on S3 its files are: another run's, where its result was taken over."""
        return stage_prefix(self.run.store, self.run.id, self.name)

    def result(self) -> Result | None:
        """What the stage answered, or None while it is not done."""
        found = self.run.store.get_json(f"{self.prefix}/result.json")
        return None if found is None else dict(found)

    @property
    def expired(self) -> str:
        """The key of the mark, where its files are, that they hold people's data and are kept no longer; its result is."""
        return f"{self.kept_prefix}/{EXPIRED}"

    def required(self) -> Result:
        """The result. Raises TryAgainError where the stage has not been done."""
        found = self.result()
        if found is None:
            raise TryAgainError(f"{self.run.id}: stage {self.name} is not done", "run the stages in order")
        return found

    def read(self, form: type[R]) -> R | None:
        """The result in the form of its stage (`lineage.results`). Raises DataError where it does not fit that."""
        found = self.result()
        try:
            return None if found is None else form.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"{self.run.id}: the result of stage {self.name} is damaged",
                f"{self.prefix}/result.json: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            ) from error

    def require(self, form: type[R]) -> R:
        """The result in its form. Raises TryAgainError where the stage has not been done, and what `read` raises."""
        found = self.read(form)
        return form.model_validate(self.required()) if found is None else found

    def files(self) -> Path:
        """The directory of a stage that is done, with its files, fetched from S3 where this machine lacks them."""
        result = self.required()
        by = _done_by(result, self.run.id)
        for directory in dict.fromkeys((self.run.work / by / self.name, self.directory)):
            marker = directory / ".complete"
            if marker.is_file() and marker.read_text() == _canonical(result):
                return directory
        self.run.store.download_directory(f"{run_folder(by)}{self.name}", self.directory)
        if (self.directory / EXPIRED).is_file():
            raise DataError(
                f"{by}: the files of stage {self.name} are kept no longer, for they hold what customers asked",
                "begin the night again",
            )
        (self.directory / ".complete").write_text(_canonical(result))
        return self.directory

    def take_over(self, identity: StageIdentity) -> Result | None:
        """The result of another run of the day that has done the same; from now on it is this run's. None where there is none."""
        record = read_record(self.run.store, identity)
        found = (
            self.run.store.get_json(f"{run_folder(record.run)}{self.name}/result.json") if record else None
        )
        if record is None or found is None or found.get("identity") != identity.digest:
            return None
        if self.run.store.exists(f"{run_folder(record.run)}{self.name}/{EXPIRED}"):
            return None
        self.clear()  # of an attempt that was broken off
        self.run.store.put_json(f"{self.prefix}/result.json", found)
        logger(stage=self.name, run=self.run.id).info("done by another run, taken over", of=record.run)
        return dict(found)

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
        with _held(path, wait_seconds, f"{self.run.id}: stage {self.name}"):
            yield

    @contextmanager
    def lock_of(self, identity: StageIdentity) -> Iterator[None]:
        """Hold the work itself on this machine: of two runs that would do the same, the second waits and takes it over."""
        path = (self.run.work / self.run.id).parent / ".stages" / f"{self.name}-{identity.digest}.lock"
        with _held(path, _A_NIGHT, f"{self.run.id}: stage {self.name}"):
            yield


@contextmanager
def _held(path: Path, wait_seconds: float, what: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        if not take_lock(handle, wait_seconds):
            raise AlreadyRunningError(f"{what} is being run by another process")
        yield


def stage_prefix(store: ObjectStore, run: str, name: str) -> str:
    """Where on S3 the files of a run's stage are: below the run that did it, which may be another of its day."""
    result = store.get_json(f"{run_folder(run)}{name}/result.json") or {}
    return f"{run_folder(_done_by(result, run))}{name}"


def _done_by(result: Result, run: str) -> str:
    by = str(result.get("run") or run)
    return by if by.rpartition("/")[0] == run.rpartition("/")[0] else run


def run_stage(
    run: Run, name: str, work: Callable[[Run], Result], identity_of: IdentityOf = lambda run: None
) -> Result:
    """Do a stage once: a result that is there, or that another run of the same identity has made, is given back (`reused`).

    Two processes never do it at once.
    """
    stage = run.stage(name)
    log = logger(stage=name, run=run.id)
    with stage.lock():
        found = stage.result()
        expired = found is not None and run.store.exists(stage.expired)
        if found is not None and not expired:
            log.info("already done, reused")
            return {**found, "reused": True}
        identity = identity_of(run)
        with stage.lock_of(identity) if identity else nullcontext():
            found = stage.take_over(identity) if identity else None
            if found is not None:
                return {**found, "reused": True}
            started = time.monotonic()
            log.info("started")
            if expired:
                stage.clear()  # a mark may have been fetched in place of the files
            result = {**work(run), "seconds": round(time.monotonic() - started, 1), "run": run.id}
            shared = identity is not None and identity_of(run) == identity
            if identity is not None and not shared:
                log.info("what it reads changed meanwhile: no other run will take it over")
            result = stage.commit({**result, "identity": identity.digest if identity and shared else ""})
            if expired:
                run.store.delete(
                    [stage.expired]
                )  # its own by now: another run's files are as gone as they were
            if identity is not None and shared:
                write_record(run.store, identity, run.id)
        log.info("done", seconds=result["seconds"])
    return {**result, "reused": False}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
