"""`reshelve forget`: a person's rows leave everything that is kept of a source, and nothing brings them back.

First the wish is written down (`clickstream.forgotten`): from then on landing and nights leave the rows out, and a night
that has read them publishes nothing until it has begun again. Then it is looked whether a night is under way; and then the rows go. Each step may be
done again, and the days that were found are written down before a row of them goes: killed anywhere, the next call goes on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from reshelve.clickstream.forgotten import (
    Forgotten,
    add_request,
    read_forgotten,
    session_digest,
    user_digest,
    visit_digest,
)
from reshelve.clickstream.forgotten_rows import DamagedFileError, drop_from_file, mentions
from reshelve.clickstream.privacy import pseudonym, pseudonym_keys
from reshelve.errors import ConfigurationError, DataError, PartlyDoneError, TryAgainError
from reshelve.logs import logger
from reshelve.pipeline.personal_data import SCRATCH_OF
from reshelve.pipeline.source_files import LandedFiles, days_of_log, is_parquet
from reshelve.pipeline.source_runs import (
    ENDED,
    days_read,
    rankers_of,
    runs_of_ranker,
    said,
    source_of,
    under_way,
)
from reshelve.pipeline.trained_versions import trained_on
from reshelve.raw.sources import load_source
from reshelve.scratch import abandoned
from reshelve.settings import settings
from reshelve.store.layout import run_folder
from reshelve.store.objects import ObjectStore, object_store
from reshelve.validation.verdicts import landed_digest, landed_objects, read_verdict, verdict_key

_MOST_NAMED = 10
_ROUNDS = 5


def forget(source: str, people: Sequence[str] = (), sessions: Sequence[str] = ()) -> dict[str, Any]:
    """Delete the rows of people from all that is kept of a source.

    `people`: user ids, as the raw files or the landed rows have them. `sessions`: session ids, likewise, of visitors without
    one. Returns `rows` (that went, by where), `days`, `runs` and `work` (that went as a whole), `versions` that were trained
    on such days: ranker, version, whether it serves, and when it goes.

    Raises ConfigurationError for a source that is not known or lists without ids, TryAgainError while a night of the
    source is under way (the call is to be repeated), PartlyDoneError, with the result, where something could not be
    reached: it is named.
    """
    load_source(source)
    users = {digest for value in _ids(people) for digest in map(user_digest, _written(value))}
    visits = {digest for value in _ids(sessions) for digest in map(session_digest, _written(value))}
    if not users | visits:
        raise ConfigurationError(
            "nobody is named", "expected at least one id: --user ID, --users FILE, or --session ID"
        )
    store = object_store()
    work = _Forgetting(store, source, _name(people, sessions), rankers_of(store, source))
    work.ask(users | visits)
    work.look()
    busy = under_way(store, source)
    if busy:
        raise TryAgainError(
            f"{source}: {', '.join(busy[:_MOST_NAMED])} is under way; if it has read these rows it will publish nothing",
            "nothing was deleted yet: repeat this command when it has ended; nights that begin from now on leave the rows out",
        )
    work.delete()
    for _ in range(_ROUNDS):  # what was landing, or being validated, may have kept rows meanwhile
        gone = sum(work.rows.values())
        if not work.look():
            break
        work.delete()
        if sum(work.rows.values()) == gone:
            break  # what cannot be deleted is named
    else:
        work.came_again()
    result = work.result()
    logger(source=source).info(
        "forgotten",
        people=len({*_ids(people), *_ids(sessions)}),
        rows=result["rows"],
        runs=len(result["runs"]),
    )
    if work.problems:
        raise PartlyDoneError(
            f"{source}: {len(work.problems)} places were not reached; all others are done",
            "\n".join(work.problems),
            result,
        )
    return result


def _ids(given: Sequence[str]) -> list[str]:
    return sorted({value.strip() for value in given if value.strip()})


def _name(people: Sequence[str], sessions: Sequence[str]) -> str:
    """One name for the same people, so that a call that is repeated goes on with its own."""
    listed = [*map(user_digest, _ids(people)), *map(session_digest, _ids(sessions))]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def _written(value: str) -> set[str]:
    """An id as anything may have it: as it is, and as its pseudonym under each key."""
    return {value, *(pseudonym(value, [key], key.begins) for key in pseudonym_keys())}


@dataclass
class _Forgetting:
    store: ObjectStore
    source: str
    name: str
    rankers: list[str]
    rows: dict[str, int] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    work: list[str] = field(default_factory=list)
    days: frozenset[date] = frozenset()  # that had their rows
    mark: str = ""  # of this wish: who left it out has read none of them
    problems: list[str] = field(default_factory=list)

    @property
    def files(self) -> LandedFiles:
        """Where rows of people are."""
        return LandedFiles(self.store, self.source)

    def ask(self, digests: set[str]) -> None:
        """Write down whom to forget: nothing that begins from now on reads their rows."""
        add_request(self.store, self.source, self.name, digests)

    def look(self) -> bool:
        """Find the days, and the visits that are theirs alone, and write both down before a row goes; whether there are any."""
        known = self._known()
        days: set[date] = set()
        visits: set[str] = set()
        rows = False
        for day in self.files.dates():
            found, mentioned, alone = self.files.look_at(day, known)
            rows = rows or found
            if found or mentioned:
                days.add(day)
            visits |= {visit_digest(name, day) for visit in alone for name in _written(visit)}
        wish = add_request(self.store, self.source, self.name, visits, days, looked=True)
        self.days, self.mark = frozenset(wish.days), wish.mark
        return rows or not visits <= known.digests

    def delete(self) -> None:
        """Their rows, and whatever was made of the days that had them."""
        known = self._known()
        self._runs()
        self._left()
        for day in self.files.dates():
            self._day(day, known)
        for key, path in self.files.logs(self.rankers):
            self._rewrite(key, path, known, days_of_log(key), "requests", damaged_goes=True)

    def _day(self, day: date, known: Forgotten) -> None:
        """Rewrite a day. A verdict that was on what had landed holds for what is left of it."""
        verdict = read_verdict(self.store, self.source, day)
        objects = landed_objects(self.store, self.source, day)
        judged = bool(verdict and objects and verdict.landed == landed_digest(self.store, objects))
        for key, path in self.files.tables(day):
            self._rewrite(key, path, known, [day], "validated" if key.startswith("validated/") else "landed")
        if verdict and judged:
            left = verdict.model_copy(update={"landed": landed_digest(self.store, objects)})
            if left != verdict:
                self.store.put_json(verdict_key(self.source, day), left.result())

    def came_again(self) -> None:
        """Name what the last look found."""
        self._problem(f"{self.source}: rows came again while they were deleted; repeat when nothing lands")

    def result(self) -> dict[str, Any]:
        versions = list(self._versions())
        return {
            "source": self.source,
            "rows": self.rows,
            "days": [day.isoformat() for day in sorted(self.days)],
            "runs": self.runs,
            "work": self.work,
            "versions": versions,
            "headline": f"{self.source}: {sum(self.rows.values())} rows went; {len(versions)} published versions were trained on such days",
        }

    def _known(self) -> Forgotten:
        return read_forgotten(self.store, self.source)

    def _rewrite(
        self,
        key: str,
        path: Path,
        known: Forgotten,
        days: Sequence[date],
        where: str,
        *,
        damaged_goes: bool = False,
    ) -> None:
        """One object without their rows. What cannot be read is named; a damaged log, which nobody can read, goes."""
        try:
            if not is_parquet(key):
                if any(mentions(path, known, day) for day in days):
                    self._problem(f"{key}: no Parquet; delete it, and land it again without these rows")
                return
            dropped = drop_from_file(path, known, days)
        except DataError as error:
            if damaged_goes and isinstance(error, DamagedFileError):
                self.store.delete([key])
                logger(source=self.source).warning("a damaged log was deleted", key=key)
            else:
                self._problem(f"{key}: {error.headline}; delete it if it may hold them")
            return
        if dropped:
            self.store.upload_file(path, key)
            self.rows[where] = self.rows.get(where, 0) + dropped

    def _problem(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)

    def _runs(self) -> None:
        """Runs that read such days go as a whole: a stage that is taken up again must not go on from what knew them."""
        for ranker in self.rankers:
            for run in runs_of_ranker(self.store, ranker):
                if self._kept(run):
                    continue
                if self._delete_run(run):
                    self.runs.append(run)
            for directory in sorted((settings().work / ranker).glob("*/*")):
                run = f"{ranker}/{directory.parent.name}/{directory.name}"
                if directory.is_dir() and directory.name != ".stages" and not self._kept(run):
                    shutil.rmtree(directory)
                    self.work.append(run)

    def _left(self) -> None:
        """What killed processes left on this machine: whose rows lie there, as they came, nobody can tell."""
        for directory in [path for done in SCRATCH_OF for path in abandoned(done)]:
            shutil.rmtree(directory)
            self.work.append(directory.name)

    def _delete_run(self, run: str) -> bool:
        """Delete a run's objects; False where there are none. The pin of one that has published stays, as a night that has ended:
        it holds nothing of people, and a release that is still open goes by it."""
        pin_key = f"{run_folder(run)}pin.json"
        keys = {key for key, _ in self.store.list(run_folder(run))}
        pin = said(self.store, pin_key)
        published = said(self.store, f"{run_folder(run)}publish/result.json")
        if pin and published.get("published") and not pin.get(ENDED):
            pin[ENDED] = datetime.now(UTC).isoformat()
            self.store.put_json(pin_key, pin)
        if pin and pin.get(ENDED):
            keys.discard(pin_key)
        # The results last: a stage whose files are gone is seen to be there, and the next call goes on.
        self.store.delete(sorted(keys, key=lambda key: (key.endswith("result.json"), key)))
        return bool(keys)

    def _kept(self, run: str) -> bool:
        """Whether a run has read none of these days, or another source; one that says nothing of itself may have."""
        if source_of(self.store, run) not in (self.source, None):
            return True
        days = days_read(self.store, run, self.mark)
        return days is not None and not days & self.days

    def _versions(self) -> Iterator[dict[str, Any]]:
        """Published versions that were trained on these days."""
        for ranker in self.rankers:
            yield from trained_on(self.store, ranker, self.days, self.mark, self._problem)
