"""`reshelve forget`: a person's rows leave everything that is kept of a source, and nothing brings them back.

First the wish is written down (`clickstream.forgotten`): from then on landing and nights leave the rows out, and a night
that has read them publishes nothing. Then it is looked whether a night is under way; and then the rows go. Each step may be
done again, and the days that were found are written down before a row of them goes: killed anywhere, the next call goes on.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.clickstream.forgotten import (
    ID_COLUMNS,
    Forgotten,
    add_request,
    digest_of,
    drop_from_file,
    mentions,
    read_forgotten,
)
from reshelve.clickstream.privacy import pseudonym, pseudonym_keys
from reshelve.config.ranker import read_ranker
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import ConfigurationError, DataError, PartlyDoneError, TryAgainError
from reshelve.logs import logger
from reshelve.pipeline.source_runs import days_read, rankers_of, runs_of_ranker, source_of, under_way
from reshelve.raw.sources import load_source
from reshelve.settings import settings
from reshelve.store.layout import requests_of, run_folder
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import list_versions, read_manifest
from reshelve.validation.verdicts import partitions_below

_ROWS = ("good.parquet", "quarantine.parquet")
_MOST_NAMED = 10
_DAMAGED = (pa.ArrowException, EOFError, OSError, ValueError)


def forget(source: str, people: Sequence[str]) -> dict[str, Any]:
    """Delete the rows of people from all that is kept of a source.

    `people`: user ids, as the raw files or the landed rows have them; a session id of somebody without one is taken too.
    Returns `rows` (that went, by where), `days`, `runs` and `work` (that went as a whole), `versions` that were trained on
    such days: ranker, version, whether it serves, and when it goes.

    Raises ConfigurationError for a source that is not known or a list without ids, TryAgainError while a night of the
    source is under way (it will publish nothing; the call is to be repeated), PartlyDoneError, with the result, where
    something could not be reached: it is named.
    """
    load_source(source)
    ids = sorted({person.strip() for person in people if person.strip()})
    if not ids:
        raise ConfigurationError("nobody is named", "expected at least one id: --user ID, or --users FILE")
    store = object_store()
    work = _Forgetting(store, source, _name(ids), rankers_of(store, source))
    work.ask(_written(ids))
    work.look()
    busy = under_way(store, source)
    if busy:
        raise TryAgainError(
            f"{source}: {', '.join(busy[:_MOST_NAMED])} is under way and may have read these rows; it will publish nothing",
            "nothing was deleted yet: repeat this command when it has ended; nights that begin from now on leave the rows out",
        )
    work.delete()
    result = work.result()
    logger(source=source).info("forgotten", people=len(ids), rows=result["rows"], runs=len(result["runs"]))
    if work.problems:
        raise PartlyDoneError(
            f"{source}: {len(work.problems)} places were not reached; all others are done",
            "\n".join(work.problems),
            result,
        )
    return result


def _name(ids: Sequence[str]) -> str:
    """One name for the same people, so that a call that is repeated goes on with its own."""
    return hashlib.sha256("\n".join(map(digest_of, ids)).encode()).hexdigest()[:16]


def _written(ids: Sequence[str]) -> set[str]:
    """Ids as anything may have them: as they are, and as their pseudonym under each key."""
    keys = pseudonym_keys()
    return {*ids, *(pseudonym(value, [key], key.begins) for key in keys for value in ids)}


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

    def ask(self, ids: set[str]) -> None:
        """Write down whom to forget: nothing that begins from now on reads their rows."""
        add_request(self.store, self.source, self.name, ids, ())

    def look(self) -> None:
        """Find the days, and the visits that are theirs alone, and write both down before a row goes."""
        while True:  # a visit that is found may be on other days, too
            known = self._known()
            days: set[date] = set()
            sessions: set[str] = set()
            for day, _, path in self._tables():
                if found := _rows_of(path, known):
                    days.add(day)
                    sessions |= found
            sessions.discard("")
            wish = add_request(self.store, self.source, self.name, _written(sorted(sessions)), days)
            self.days, self.mark = frozenset(wish.days), wish.mark
            if known.digests >= set(wish.ids):
                return

    def delete(self) -> None:
        """Their rows, and whatever was made of the days that had them."""
        known = self._known()
        self._runs()
        for _, key, path in self._tables():
            self._rewrite(key, path, known, "validated" if key.startswith("validated/") else "landed")
        for key, path in self._logs():
            self._rewrite(key, path, known, "requests", damaged_goes=True)

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

    def _tables(self) -> Iterator[tuple[date, str, Path]]:
        """Landed and validated files of rows, each fetched for as long as it is looked at."""
        kinds: tuple[Callable[[str, date], str], ...] = (landed_prefix, validated_prefix)
        for prefix in kinds:
            for day in partitions_below(self.store, prefix(self.source, date.min)):
                for key, _ in self.store.list(prefix(self.source, day)):
                    name = key.rpartition("/")[2]
                    if prefix is landed_prefix or name in _ROWS:
                        yield from ((day, key, path) for path in self._fetched(key))

    def _logs(self) -> Iterator[tuple[str, Path]]:
        for ranker in self.rankers:
            for key, _ in self.store.list(requests_of(ranker)):
                yield from ((key, path) for path in self._fetched(key))

    def _fetched(self, key: str) -> Iterator[Path]:
        settings().work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings().work, prefix="forget-") as scratch:
            path = Path(scratch) / key.rpartition("/")[2]
            self.store.download_file(key, path)
            yield path

    def _rewrite(
        self, key: str, path: Path, known: Forgotten, where: str, *, damaged_goes: bool = False
    ) -> None:
        """One object without their rows. What cannot be read is named; a damaged log, which nobody can read, goes."""
        try:
            if not key.endswith((".parquet", ".pq")):
                if mentions(path, known):
                    self._problem(f"{key}: no Parquet; delete it, and land it again without these rows")
                return
            dropped = drop_from_file(path, known.digests)
        except _DAMAGED as error:
            if damaged_goes:
                self.store.delete([key])
                logger(source=self.source).warning("a damaged log was deleted", key=key)
            else:
                self._problem(
                    f"{key}: cannot be read ({type(error).__name__}); delete it if it may hold them"
                )
            return
        if dropped:
            self.store.put(key, path.read_bytes())
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
                keys = [key for key, _ in self.store.list(run_folder(run))]
                if not keys:  # a folder may outlive its objects
                    continue
                # The results last: a stage whose files are gone is seen to be there, and the next call goes on.
                self.store.delete(sorted(keys, key=lambda key: key.endswith("result.json")))
                self.runs.append(run)
            for directory in sorted((settings().work / ranker).glob("*/*")):
                run = f"{ranker}/{directory.parent.name}/{directory.name}"
                if directory.is_dir() and directory.name != ".stages" and not self._kept(run):
                    shutil.rmtree(directory)
                    self.work.append(run)

    def _kept(self, run: str) -> bool:
        """Whether a run has read none of these days, or another source; one that says nothing of itself may have."""
        if source_of(self.store, run) not in (self.source, None):
            return True
        days = days_read(self.store, run, self.mark)
        return days is not None and not days & self.days

    def _versions(self) -> Iterator[dict[str, Any]]:
        """Published versions that were trained on these days."""
        for ranker in self.rankers:
            pointer, versions = read_pointer(self.store, ranker), list_versions(self.store, ranker)
            for place, version in enumerate(versions):
                try:
                    manifest = read_manifest(self.store, ranker, version)
                except DataError as error:
                    self._problem(f"{ranker} version {version}: {error.headline}")
                    continue
                lineage = manifest.lineage if manifest else None
                days = {date.fromisoformat(day) for day in lineage.verdicts} if lineage else set()
                if lineage and days & self.days and days_read(self.store, lineage.run, self.mark) != set():
                    serves = pointer is not None and version in pointer.wanted
                    goes = _goes(ranker, len(versions) - place - 1, serves)
                    yield {"ranker": ranker, "version": version, "serves": serves, "goes": goes}


def _goes(ranker: str, newer: int, serves: bool) -> str:
    """When housekeeping deletes a version that has so many newer ones."""
    try:
        left = max(0, read_ranker(ranker).release.keep - newer)
    except ConfigurationError:
        return "when its ranker file can be read again, by housekeeping"
    said = f"after {left} newer versions" if left else "with the next housekeeping"
    return f"{said}, once it is neither stable, previous nor canary" if serves else said


def _rows_of(path: Path, known: Forgotten) -> set[str]:
    """Visits that are theirs alone, of a file of rows; with "" in it where it has any row of theirs at all."""
    try:
        if path.suffix not in (".parquet", ".pq"):
            return {""} if mentions(path, known) else set()
        names = [name for name in ID_COLUMNS if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=names)
    except _DAMAGED:  # named when it is to be written anew
        return set()
    users: dict[str, set[str]] = {}
    theirs: set[str] = set()
    columns = [
        table[name].to_pylist() if name in names else [None] * len(table)
        for name in ("user_id", "session_id")
    ]
    answers: dict[str, bool] = {}

    def named(value: Any) -> bool:
        if value is None:
            return False
        if value not in answers:
            answers[value] = known.names(str(value))
        return answers[value]

    for user, session in zip(*columns, strict=True):
        if session is not None and user is not None:
            users.setdefault(session, set()).add(user)
        if named(user) or named(session):
            theirs |= {"", str(session or "")}
    return {session for session in theirs if all(named(user) for user in users.get(session, ()))}
