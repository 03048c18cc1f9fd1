"""A night is pinned when it begins: its later stages read the ranker file, and run the code, that it began with.

`begin` writes `runs/<run>/pin.json`: the ranker with its overrides, and what the code is called. `go_on` gives a later stage
the same run, whatever has been edited or deployed since. Without a pin (`--run`) a stage reads the file as it is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from reshelve.config.bases import is_directory
from reshelve.config.ranker import Ranker, read_ranker
from reshelve.errors import ConfigurationError
from reshelve.lineage.run import Result, Run, code_version, parse_partition
from reshelve.logs import logger
from reshelve.pipeline import pinned_code
from reshelve.pipeline.changed import changed, said
from reshelve.settings import settings
from reshelve.store.layout import run_folder
from reshelve.store.objects import object_store

_DIGEST = re.compile(r"[0-9a-f]{12}")
_MOST_NAMED = 8
_LOCAL = ".pin.json"  # in a run's directory of the work directory
LONGEST_NIGHT = timedelta(hours=12)
_NEXT = "this night continues as it began; the next one uses the change"


class Pin(BaseModel):
    """How a night began. It holds no secret: nothing of the environment is in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    begun_at: datetime
    ranker: dict[str, Any]  # the whole form, with `values`
    values: dict[str, Any]  # dotted path → what replaced the ranker file's value
    code_version: str
    code: str  # `pinned_code.digest_of` the package
    packages: dict[str, str]
    base: (
        dict[str, Any] | None
    )  # what a directory held that is the base; others are kept when they are first fetched


def begin(run: Run, values: dict[str, Any]) -> Result:
    """Pin a run: its ranker, which has `values` in it, and the code of this process. Begun again, it is pinned again."""
    pin = Pin(
        begun_at=datetime.now(UTC).replace(microsecond=0),
        ranker=run.ranker.model_dump(mode="json"),
        values=values,
        code_version=code_version(),
        code=pinned_code.keep_code(run.work / run.id),
        packages=pinned_code.packages(),
        base=_keep_base(run),
    )
    run.store.put_json(_key(run.id), pin.model_dump(mode="json"))
    _remember(run.work / run.id, pin)
    return {
        "headline": f"the night {run.id} begins: ranker {run.ranker.name}, code {pin.code_version}",
        "run": run.id,
        "digest": run.digest,
        "source": run.ranker.data.source,
        "begun_at": pin.begun_at.isoformat(),
    }


def begun(ranker: str, partition: str, asked: str) -> Run:
    """The run as it was pinned, read by this process's code. `asked`: its id, or the last part of that.

    Raises ConfigurationError where no such night has begun.
    """
    id_ = _id(ranker, partition, asked)
    return _run(id_, _read(id_))


def rules_of(ranker: str, night: str | None) -> Ranker:
    """The ranker that a version is released by: as the night of that id began; without one as its file is now.

    Whether a person is asked is always as the file says now: what asks is built from it. Where the file is wrong by now, the
    newest night that may still run says all. Raises ConfigurationError.
    """
    now: Ranker | None
    try:
        now = read_ranker(ranker)
    except ConfigurationError:
        now = under_way(ranker)
        if now is None and not night:
            raise
    if not night:
        assert now is not None
        return now
    day = night.split("/")[1] if night.count("/") == 2 else ""
    pinned = begun(ranker, day, night).ranker
    if now is None:
        return pinned
    asks = {"approval": now.release.approval, "approval_hours": now.release.approval_hours}
    return pinned.model_copy(update={"release": pinned.release.model_copy(update=asks)})


def go_on(ranker: str, partition: str, asked: str) -> Run:
    """The run as it was pinned, for its next stage; says what is different by now.

    Raises OtherCodeError where this process has to become one of the code that the night began with, and what `begun` raises.
    """
    id_ = _id(ranker, partition, asked)
    pin = _read(id_)
    directory = settings().work / id_
    if not (directory / _LOCAL).is_file():
        _remember(directory, pin)
    if not pinned_code.runs_copy():
        if pin.code == pinned_code.deployed_digest():
            pinned_code.keep_code(directory)  # a machine that does the first of its stages of this night
        copy = pinned_code.kept_code(directory)
        if copy is not None and copy.name == pin.code:
            os.utime(copy)
            raise pinned_code.OtherCodeError(copy)
    run = _run(id_, pin)
    log = logger(run=id_)
    log.info(
        "goes on as it began", begun_at=pin.begun_at.isoformat(), code=pin.code_version, values=pin.values
    )
    for sentence in differences(run.ranker, pin):
        log.warning(sentence)
    return run


def under_way(ranker: str) -> Ranker | None:
    """The ranker as its newest night here began, where that may still run: its DAGs stay while its file is wrong.

    Asks nothing but this machine's work directory: DAG files are read every few seconds.
    """
    since = time.time() - LONGEST_NIGHT.total_seconds()
    try:
        pins = {path: path.stat().st_mtime for path in (settings().work / ranker).glob(f"*/*/{_LOCAL}")}
        newest = max(pins, key=lambda path: pins[path], default=None)
        if newest is None or pins[newest] < since:
            return None
        return Ranker.model_validate(Pin.model_validate_json(newest.read_text()).ranker)
    except (ValidationError, OSError):  # housekeeping may delete one meanwhile
        return None


def differences(ranker: Ranker, pin: Pin) -> Iterator[str]:
    """A sentence for each thing that is no longer as the night began."""
    try:
        paths = changed(ranker, read_ranker(ranker.name, pin.values))
    except ConfigurationError as error:
        yield f"the ranker file is wrong by now ({error.headline}): {_NEXT} once it is right"
    else:
        if paths:
            yield f"the ranker file has changed since ({said(paths, _MOST_NAMED)}): {_NEXT}"
    if pinned_code.digest_here() != pin.code:
        yield (
            f"the code that this night began with ({pin.code_version}) is not kept on this machine: its "
            f"finished stages are kept, and it continues with the deployed code ({code_version()}). Clear "
            "the task `night` to begin it again"
        )
    elif pinned_code.deployed_digest() != pin.code:
        yield (
            f"other code has been deployed since: {_NEXT}. To use it now, clear the task `night`, or "
            "begin the night again"
        )
    now = pinned_code.packages()
    others = {
        name: [pin.packages.get(name), now.get(name)]
        for name in sorted(pin.packages.keys() | now.keys())
        if pin.packages.get(name) != now.get(name)
    }
    if others:
        yield (
            f"other packages are installed since ({said(others, _MOST_NAMED)}): no night keeps those of "
            "before. If a stage fails because of this, clear the task `night`, or begin the night again"
        )


def _keep_base(run: Run) -> dict[str, Any] | None:
    from reshelve.model.base import resolve_base  # not for those who only read a pin
    from reshelve.model.kept_base import keep_base

    uri = run.ranker.model.base
    if not is_directory(uri):
        return None
    base = resolve_base(uri, run.store)
    keep_base(uri, base)
    return base.record()


def _id(ranker: str, partition: str, asked: str) -> str:
    day = parse_partition(partition).isoformat()
    digest = asked.rpartition("/")[2]
    id_ = f"{ranker}/{day}/{digest}"
    if not _DIGEST.fullmatch(digest) or asked not in (digest, id_):
        raise ConfigurationError(
            f"--run {asked}: no run of {ranker} on {day}",
            f"expected {ranker}/{day}/ and 12 hex digits, or those alone",
        )
    return id_


def _remember(directory: Path, pin: Pin) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{_LOCAL}.{os.getpid()}"
    partial.write_text(pin.model_dump_json())
    partial.replace(directory / _LOCAL)


def _key(id_: str) -> str:
    return f"{run_folder(id_)}pin.json"


def _read(id_: str) -> Pin:
    found = object_store().get_json(_key(id_))
    if found is None:
        raise ConfigurationError(
            f"no night began as {id_}, or its work was deleted since",
            "`reshelve begin` begins one; in Airflow clear the task `night` of the run, with all after it",
        )
    try:
        return Pin.model_validate(found)
    except ValidationError as error:
        raise _unreadable(id_, error) from error


def _run(id_: str, pin: Pin) -> Run:
    _, day, digest = id_.rsplit("/", 2)
    try:
        ranker = Ranker.model_validate(pin.ranker)
    except ValidationError as error:
        raise _unreadable(id_, error) from error
    return Run(ranker, parse_partition(day), object_store(), settings().work, begun=digest, base=pin.base)


def _unreadable(id_: str, error: ValidationError) -> ConfigurationError:
    return ConfigurationError(
        f"how {id_} began is not what this code can read", f"begin the night again\n{error}"
    )
