"""The newest state that a ranker's deployment log proves: what everybody believes who acts on it.

Who has followed the log goes on from there, move by move: each has to be signed, to continue the very entry before it, to
be legal by the table of a release, and to bring no version nearer to customers that the gate held, or by fewer steps than it
was published to have, without a person's word. Who looks for the
first time begins at the newest move that vouches for what was before it, else with the newest moves alone: each of them
was made by somebody who had verified the one before. `pointer.json` says no more than where to look first.

What does not verify is followed by nobody: the last good state stays in force, and `problem` says what was seen.
"""

from __future__ import annotations

import threading
from pathlib import Path
from weakref import WeakKeyDictionary

from reshelve.deployments.marks import Mark, MarkFile
from reshelve.deployments.permitted import NeedsPersonError, Permits
from reshelve.deployments.pointer import Pointer
from reshelve.deployments.signed_entries import (
    StoredEntry,
    check_move,
    claims_signature,
    entry_key,
    log_numbers,
    read_many,
    read_stored,
)
from reshelve.deployments.verification import Followed, unbroken, unbroken_from, verify, wrong_after
from reshelve.errors import DataError
from reshelve.logs import logger
from reshelve.names import require_ranker
from reshelve.settings import settings
from reshelve.store.layout import deployments_of
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import Trust, trust

_WINDOW = 64  # moves that a first look verifies: at S3's distance a fraction of a second
_FARTHEST = 1024  # and how far it goes back for one that it can begin with
_MENDS = "reshelve log shows it; docs/how-to/keys.md says how a log is mended"


class VerifiedLog:
    """One ranker's log, as one process or one agent follows it. Threads may share it.

    `pointer`: the newest state that was verified, or None. `problem`: what is wrong with the log beyond it, or with what
    was followed; empty while all is well.
    """

    def __init__(self, store: ObjectStore, ranker: str, folder: Path | None) -> None:
        self._store, self.ranker = store, require_ranker(ranker)
        self._file = MarkFile(folder, store.bucket, ranker)
        self._mark = self._file.read()
        self._kept = self._file.is_there()  # where it is deleted later, nothing is remembered here either
        self._etag = ""
        self._doubted = ""  # the trust under which what was followed does not verify any more
        self._doubt = ""
        self._lock = threading.Lock()
        self.problem = ""

    @property
    def pointer(self) -> Pointer | None:
        """The newest verified state."""
        return None if self._mark is None else self._mark.pointer

    @property
    def digest(self) -> str:
        """Of the newest verified entry: what the next one has to say."""
        return "" if self._mark is None else self._mark.digest

    @property
    def since(self) -> int:
        """Moves from here on have to be signed, whoever reads them."""
        return 1 if self._mark is None else self._mark.since

    def look(self) -> Pointer | None:
        """Follow what was added. Raises TryAgainError or ConfigurationError for what the store or the keys do."""
        with self._lock:
            before, trusted = self.problem, trust()
            if self._kept and not self._file.is_there():
                self._forget()
            self.problem = self._begin(trusted) if self._mark is None else self._go_on(self._mark, trusted)
            if self.problem and self.problem != before:
                logger(ranker=self.ranker).error(
                    "the deployment log is not followed further", problem=self.problem
                )
            return self.pointer

    def require_whole(self) -> None:
        """Raises DataError where something is wrong with the log: nobody moves on from there."""
        if self.problem:
            raise DataError(f"{self.ranker}: {self.problem}", _MENDS)

    def require_followed(self, stored: StoredEntry) -> None:
        """Raises DataError where nobody would follow this move after the newest one: it would block the log.

        NeedsPersonError where everybody would, had a person's key signed it.
        """
        trusted = trust()
        before = self.pointer or Pointer(ranker=self.ranker)
        check_move(stored, before, self.digest, trusted)
        if refusal := Permits(self._store, trusted).refusal(stored):
            raise NeedsPersonError(refusal.why) if refusal.person else DataError(refusal.why)

    def made(self, stored: StoredEntry) -> None:
        """Follow a move that this process has just written after the newest one."""
        with self._lock:
            if stored.sequence == 1 + (0 if self._mark is None else self._mark.sequence):
                self._keep(Followed([stored]), trust())

    def _begin(self, trusted: Trust) -> str:
        head = self._head()
        if head == 0:
            return ""
        for last in range(head, max(0, head - _FARTHEST), -_WINDOW):
            first = max(1, last - _WINDOW + 1)
            entries = unbroken(read_many(self._store, self.ranker, range(first, last + 1)))
            if not entries:
                return f"{entry_key(self.ranker, last)} is missing"
            if trusted.required and not any(claims_signature(stored) for stored in entries):
                return f"{entries[-1].key} is not signed, nor is any move before it: a person has to vouch for the log"
            found = verify(
                self._store,
                entries,
                trusted,
                None if entries[0].sequence > 1 else Pointer(ranker=self.ranker),
            )
            if last != head and found.entries and not found.problem:
                found = Followed(
                    found.entries, wrong_after(found.entries[-1], self._store, trusted), found.vouched
                )
            if found.entries or first == 1:
                self._keep(found, trusted)
                return found.problem
        return f"none of the newest {_FARTHEST} moves is signed by a trusted key"

    def _head(self) -> int:
        """The number of the newest entry; where `pointer.json` does not lead to it, all keys are listed."""
        found = self._store.get(f"{deployments_of(self.ranker)}pointer.json")
        hint = 0 if found is None else hinted(found.body)
        if hint and self._store.exists(entry_key(self.ranker, hint)):
            if not self._store.exists(entry_key(self.ranker, hint + 1)):
                return hint
        elif found is None and not self._store.exists(entry_key(self.ranker, 1)):
            return 0
        last = 0
        for number in log_numbers(self._store, self.ranker):
            if last and number != last + 1:
                break  # what lies beyond a gap continues nothing
            last = number
        return last

    def _go_on(self, mark: Mark, trusted: Trust) -> str:
        if mark.trust == trusted.digest:
            self._doubted = self._doubt = ""  # a key's file was mended
        elif self._doubted != trusted.digest:
            mark = self._verify_again(mark, trusted)
        fresh = read_stored(self._store, self.ranker, mark.sequence + 1)
        if fresh is None:
            return self._still_there(mark) or self._doubt
        entries, size = [fresh], 1
        while more := read_many(
            self._store, self.ranker, range(entries[-1].sequence + 1, entries[-1].sequence + 1 + size)
        ):
            entries, size = [*entries, *more], _WINDOW
        found = verify(
            self._store, unbroken_from(entries, mark.sequence + 1), trusted, mark.pointer, mark.digest
        )
        if found.vouched:
            self._doubt = ""
        elif self._doubt:
            return self._doubt
        self._keep(found, trusted)
        return found.problem

    def _verify_again(self, mark: Mark, trusted: Trust) -> Mark:
        """Other keys are trusted than before: what was followed last is asked once more.

        Whoever has followed it keeps what is in force, but goes on only when a person has vouched for the log.
        """
        first = max(mark.since, mark.sequence - _WINDOW + 1)
        entries = unbroken(read_many(self._store, self.ranker, range(first, mark.sequence + 1)))
        begins = Pointer(ranker=self.ranker) if entries and entries[0].sequence == 1 else None
        found = verify(self._store, entries, trusted, begins, again=True) if entries else Followed()
        self._doubted, self._doubt = trusted.digest, found.problem
        if found.problem or not entries or entries[-1].digest != mark.digest:
            return mark  # the latter is told below
        self._mark = mark.model_copy(update={"trust": trusted.digest})
        self._file.write(self._mark)
        return self._mark

    def _still_there(self, mark: Mark) -> str:
        """What became of the move that was followed last: a log that was put back does not have it."""
        key = entry_key(self.ranker, mark.sequence)
        found, changed = self._store.get_if_changed(key, self._etag or None)
        where = f" ({self._file.path} says so)" if self._file.path else ""
        if found is None and changed:
            return f"{key} is gone, which was followed here{where}: an older log was put back"
        if found is not None:
            stored = StoredEntry(key, self.ranker, mark.sequence, found.body, found.stored_at)
            if stored.digest != mark.digest:
                return f"{key} is not the entry that was followed here{where}: the log was changed"
            self._etag = found.etag
        return ""

    def _keep(self, found: Followed, trusted: Trust) -> None:
        if not found.entries:
            return
        last, known = found.entries[-1], self._mark
        since = found.entries[0].sequence if known is None or found.vouched else known.since
        doubted = known is not None and known.trust != trusted.digest and not found.vouched
        self._mark = Mark(
            bucket=self._store.bucket,
            sequence=last.sequence,
            digest=last.digest,
            pointer=last.entry.pointer,
            since=since if last.is_signed else last.sequence + 1,
            trust=known.trust if doubted and known is not None else trusted.digest,
        )
        self._etag = last.etag
        self._file.write(self._mark)
        self._kept = self._file.is_there()

    def _forget(self) -> None:
        """A person deleted what this host remembers, as after a bucket was restored: begin anew."""
        logger(ranker=self.ranker).warning(
            "how far the log was followed was deleted: it is read anew", file=str(self._file.path)
        )
        self._mark, self._kept, self._etag, self._doubted, self._doubt = None, False, "", "", ""


_LOGS: WeakKeyDictionary[ObjectStore, dict[str, VerifiedLog]] = WeakKeyDictionary()
_LOGS_LOCK = threading.Lock()


def log_of(store: ObjectStore, ranker: str) -> VerifiedLog:
    """The log as this process follows it: what was verified once is not asked again."""
    with _LOGS_LOCK:
        logs = _LOGS.setdefault(store, {})
        if ranker not in logs:
            logs[ranker] = VerifiedLog(store, ranker, settings().home / "followed")
        return logs[ranker]


def hinted(body: bytes) -> int:
    """The number of the newest move, as `pointer.json` has it; 0 where it says none."""
    try:
        return Pointer.model_validate_json(body).sequence
    except ValueError:
        return 0
