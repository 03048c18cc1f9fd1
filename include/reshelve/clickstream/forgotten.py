"""Whom a source has forgotten: what `reshelve forget` was asked for, so that nothing brings their rows back.

`forgotten/<source>/<name>.json`, one for each call: digests of the ids, of which each stage drops the rows that it reads
(`forgotten_rows`), and the days on which rows were found. Raw files, and programs that land for themselves, still have those
rows: landing, and the examples stage, leave them out from then on. Ids are kept as digests only; who has one can see whether
it is there. A digest is of an id and its kind: user 4711 is not visit 4711.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydantic import BaseModel, ConfigDict

from reshelve.errors import DataError, TryAgainError
from reshelve.store.objects import ObjectStore


class Request(BaseModel):
    """One call of `forget`, as it is kept."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    ids: tuple[str, ...]  # digests, sorted
    days: tuple[date, ...] = ()
    looked: bool = False  # whether `days` are all that have rows of these ids

    @property
    def mark(self) -> str:
        """Names its ids: a run that has it among those it left out has read no row of theirs."""
        return _short(self.ids)


def _short(digests: Iterable[str]) -> str:
    listed = "".join(sorted(digests))
    return hashlib.sha256(listed.encode()).hexdigest()[:12] if listed else ""


@dataclass(frozen=True)
class Forgotten:
    """All that a source was asked to forget."""

    asked: tuple[Request, ...]
    digests: frozenset[str]
    generation: str  # names the digests: empty where nobody was forgotten

    @property
    def requests(self) -> tuple[str, ...]:
        """The marks of the requests."""
        return tuple(sorted(request.mark for request in self.asked))

    def user(self, value: str) -> bool:
        """Whether a user id is one of them."""
        return user_digest(value) in self.digests

    def session(self, value: str, days: Iterable[date]) -> bool:
        """Whether a session id is one of them: on one of `days`, or on all."""
        return session_digest(value) in self.digests or any(
            visit_digest(value, day) in self.digests for day in days
        )

    def was_read(self, left_out: Collection[str], days: Collection[date]) -> bool:
        """Whether who read `days`, and left out the requests of those marks, may have read rows of somebody else's request.

        A request whose days are not known yet may be of any day.
        """
        return any(
            request.mark not in left_out and (not request.looked or not set(days).isdisjoint(request.days))
            for request in self.asked
        )


def prefix_of(source: str) -> str:
    """Where a source's requests are."""
    return f"forgotten/{source}/"


def user_digest(value: str) -> str:
    """What is kept of a user id."""
    return _digest("user", value)


def session_digest(value: str) -> str:
    """What is kept of a session id that was named: it is theirs on every day."""
    return _digest("session", value)


def visit_digest(value: str, day: date) -> str:
    """What is kept of a session id that was found with a person: it is theirs on that day alone, for ids come again."""
    return _digest("visit", f"{day.isoformat()}\0{value}")


def _digest(kind: str, value: str) -> str:
    return hashlib.sha256(f"reshelve forget\0{kind}\0{value}".encode()).hexdigest()


def read_forgotten(store: ObjectStore, source: str) -> Forgotten:
    """What a source was asked to forget so far."""
    found = [_parsed(store, key) for key, _ in store.list(prefix_of(source)) if key.endswith(".json")]
    digests = frozenset(digest for request in found for digest in request.ids)
    return Forgotten(tuple(found), digests, _short(digests))


def _parsed(store: ObjectStore, key: str) -> Request:
    """One request. Raises DataError where it is damaged: whom to leave out is not known, so no row is read."""
    try:
        return Request.model_validate(store.get_json(key))
    except ValueError as error:
        raise DataError(
            f"{key} is damaged: whom to leave out is not known, and no row is read",
            "put an earlier version of the object back; if there is none, delete it and forget the same people again",
        ) from error


def require_no_wish_since(store: ObjectStore, source: str, known: Forgotten, what: str) -> None:
    """For who is about to keep rows that were read before. Raises TryAgainError where somebody was forgotten since."""
    if read_forgotten(store, source).generation != known.generation:
        raise TryAgainError(
            f"{source}: it was asked to forget somebody while {what}", "nothing of it was kept: do it again"
        )


def add_request(
    store: ObjectStore,
    source: str,
    name: str,
    digests: Iterable[str],
    days: Collection[date] = (),
    *,
    looked: bool = False,
) -> Request:
    """Keep, or add to, the request of that name; what was in it stays. With further ids it has to be looked for again."""
    key = f"{prefix_of(source)}{name}.json"
    known = _parsed(store, key) if store.exists(key) else Request(at=datetime.now(UTC), ids=())
    ids = tuple(sorted({*known.ids, *digests}))
    made = Request(
        at=known.at,
        ids=ids,
        days=tuple(sorted({*known.days, *days})),
        looked=looked or (known.looked and ids == known.ids),
    )
    if made != known:
        store.put_json(key, made.model_dump(mode="json"))
    return made
