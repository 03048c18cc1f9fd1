"""What a run takes over from other runs of its day, and why it does again what it does again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from reshelve.clickstream.forgotten import read_forgotten
from reshelve.config.ranker import Ranker
from reshelve.lineage.record import newest_record, read_record
from reshelve.lineage.results import ExamplesResult
from reshelve.lineage.run import EXPIRED, IdentityOf, Result, Run, run_stage
from reshelve.lineage.stage import Stage, StageIdentity
from reshelve.lineage.stage import identity as identity_with
from reshelve.logs import logger
from reshelve.pipeline.changed import flat
from reshelve.pipeline.stages import NAMES, stage_of, stages_of
from reshelve.store.layout import run_folder

_MOST_REASONS = 4
_READER = "examples"  # the stage that reads rows of people
_LONGEST = 80  # characters of a change that is told with its values


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a run that may not have begun. `result` is there where it would not be done again."""

    name: str
    result: Result | None
    why: str
    identity: str  # digest; empty where it cannot be known yet


def identity_of(name: str) -> IdentityOf:
    """A stage's identity in a run, once those before it are done. None where it is the run's alone, or nobody can say."""

    def of(run: Run) -> StageIdentity | None:
        stage = stage_of(name)
        done = {need: run.stage(need).result() for need in _needs(stage, run)}
        digests = {
            need: "" if result is None else result.get("identity") or None for need, result in done.items()
        }
        return _identity(stage, run, digests, fetch=True)

    return of


def do_stage(run: Run, name: str, work: Callable[[Run], Result]) -> Result:
    """Do a declared stage, unless its result is there or another run of the day has made it. The result fits its form."""

    def checked(run: Run) -> Result:
        result = work(run)
        stage_of(name).result.model_validate(result)
        return result

    if name == _READER:
        _drop_what_knew(run)
    return run_stage(run, name, checked, identity_of(name))


def has_read_forgotten(run: Run) -> bool:
    """Whether the examples of a run have rows of somebody whom its source was asked to forget since."""
    read = run.stage(_READER).read(ExamplesResult)
    if read is None:
        return False
    days = [date.fromisoformat(day) for day in read.verdicts]
    return read_forgotten(run.store, run.ranker.data.source).was_read(read.left_out, days)


def _begins_anew(run: Run) -> bool:
    """Whether a run has to do all its stages again: it has published nothing, and never will with what it has read."""
    return has_read_forgotten(run) and not (run.stage("publish").result() or {}).get("published")


def _drop_what_knew(run: Run) -> None:
    """Delete what a run has made of rows of somebody who was forgotten since.

    The examples go last, and of each stage its result: broken off, the next call goes on.
    """
    if not _begins_anew(run):
        return
    logger(run=run.id).info("somebody was forgotten whose rows this night has read: it does its stages again")
    for planned_stage in reversed(stages_of(run.ranker)):
        stage = run.stage(planned_stage.name)
        with stage.lock():
            keys = [key for key, _ in run.store.list(f"{stage.prefix}/")]
            run.store.delete(sorted(keys, key=lambda key: key.endswith("/result.json")))
            stage.clear()


def take_over(run: Run, name: str) -> bool:
    """Whether a stage is done, now that the result of another run of the same identity is taken over where there is one."""
    stage = run.stage(name)
    with stage.lock():
        if stage.result() is not None:
            return True
        identity = identity_of(name)(run)
        return identity is not None and stage.take_over(identity) is not None


def planned(run: Run) -> list[PlannedStage]:
    """All stages of a run, in order, as things are; nothing is written or fetched."""
    found: dict[str, PlannedStage] = {}
    anew = _begins_anew(run)
    for stage in stages_of(run.ranker):
        found[stage.name] = _planned(stage, run, found, anew)
    return list(found.values())


def _planned(stage: Stage, run: Run, before: dict[str, PlannedStage], anew: bool) -> PlannedStage:
    here = run.stage(stage.name)
    done = None if anew else here.result()
    if done is not None and not run.store.exists(here.expired):
        by = done.get("run") or run.id
        why = "this run has done it" if by == run.id else f"taken over from run {_short(by)}"
        return PlannedStage(stage.name, done, why, str(done.get("identity") or ""))
    if stage.own:
        return PlannedStage(stage.name, None, f"every run does it: {stage.own}", "")
    needs = {need: before[need].identity or None for need in _needs(stage, run)}
    known = _identity(stage, run, needs, fetch=False)
    if known is None:
        unknown = [need for need, digest in needs.items() if digest is None]
        why = f"what {unknown[0]} gives is not known yet" if unknown else "what it reads is not known yet"
        return PlannedStage(stage.name, None, why, "")
    record = read_record(run.store, known)
    folder = f"{run_folder(record.run)}{stage.name}/" if record else ""
    result = run.store.get_json(f"{folder}result.json") if record else None
    expired = result is not None and run.store.exists(f"{folder}{EXPIRED}")
    if record is not None and result is not None and not expired:
        return PlannedStage(stage.name, dict(result), f"run {_short(record.run)} has done it", known.digest)
    if expired:
        why = "its files are kept no longer, for they hold what customers asked"
        return PlannedStage(stage.name, None, why, known.digest)
    newest = newest_record(run.store, run.ranker.name, run.partition, stage.name)
    why = _reasons(differences(newest.identity, known)) if newest else "no run of this day has done it"
    return PlannedStage(stage.name, None, why, known.digest)


def _short(run: str) -> str:
    """The end of a run's id: all that differs within a day."""
    return run.rpartition("/")[2]


def _needs(stage: Stage, run: Run) -> list[str]:
    """What it needs of this night's stages; a stage that is not declared may be read by any that comes after it."""
    names = [other.name for other in stages_of(run.ranker)]
    before = names[: names.index(stage.name)] if stage.name in names else names
    return [name for name in before if name in stage.needs or name not in NAMES]


def _identity(stage: Stage, run: Run, needs: dict[str, Any], *, fetch: bool) -> StageIdentity | None:
    if stage.own or any(digest is None for digest in needs.values()):
        return None
    found = stage.found(run, fetch)
    if found is None:
        return None
    return identity_with(stage, run.ranker, run.partition, needs=needs, found=found)


def differences(before: StageIdentity, now: StageIdentity) -> list[str]:
    """What is otherwise than when a stage was last done, in words: keys with their values, packages, stages before it."""
    old, new = flat(Ranker.by_new_names(before.values)), flat(now.values)
    said = [_change(key, old.get(key), new.get(key)) for key in _other(old, new)]
    said += [f"code of {name}" for name in _other(before.code, now.code)]
    said += [f"{name} is done again" for name in _other(before.needs, now.needs)]
    for name in _other(before.found, now.found):
        was, is_ = before.found.get(name), now.found.get(name)
        plain = all(value is None or isinstance(value, int) for value in (was, is_))
        said.append(f"{name}: {was} → {is_}" if plain else f"other {name}")
    return said


def _change(key: str, before: Any, now: Any) -> str:
    said = f"{key}: {before} → {now}"
    return said if len(said) <= _LONGEST else f"{key} is another"


def _reasons(said: list[str]) -> str:
    more = len(said) - _MOST_REASONS
    return "; ".join(said[:_MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _other(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
