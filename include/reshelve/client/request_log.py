"""A sample of what was asked and answered: Parquet parts under `requests/<ranker>/dt=YYYY-MM-DD/`, written by the client library.

No personal data leaves the process: a session becomes the pseudonym that the clickstream of its day has too (so that
clicks can be joined), and what a person types by mistake is masked. Requests are handed over without waiting, memory is
bounded, and what does not fit or cannot be written is dropped and counted: no request waits for, or fails by, its log.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reshelve.clickstream.masks import mask
from reshelve.clickstream.privacy import Key, pseudonym, pseudonym_keys
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.store.layout import requests_of
from reshelve.store.objects import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

Outputs = Mapping[str, NDArray[Any]]

TOP = 10
_MOST_ROWS = 20_000  # kept in memory, about 10 MB
_PART_ROWS = 5_000
_PART_SECONDS = 60.0
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Logged:
    """One request as it was: only the flushing thread turns it into a row."""

    at: datetime
    session: str
    version: int
    label: str
    signature: str
    text: str
    items: tuple[str, ...]
    scores: tuple[float, ...]
    move: int | None = None
    meant: int | None = None


def requests_prefix(ranker: str, day: date) -> str:
    """Where a day's parts are."""
    return f"{requests_of(ranker)}dt={day.isoformat()}/"


def sampled(session: str, share: float) -> bool:
    """Whether a session is in the sample: whole sessions are, so that their clicks are too."""
    if share <= 0:
        return False
    digest = hashlib.sha256(f"request log\0{session}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56 < share


class RequestLog:
    """The sample of one client. Threads may share it; `close` writes what is left.

    Raises ConfigurationError where there is no key for pseudonyms.
    """

    def __init__(self, store: ObjectStore, ranker: str, client: str, share: float) -> None:
        if not 0 < share <= 1:
            raise ConfigurationError(
                f"{ranker}: a request log of a share of {share}", "expected more than 0, at most 1"
            )
        self._keys = pseudonym_keys()
        if not self._keys:
            raise ConfigurationError(
                f"{ranker}: a request log needs a key for the sessions in it",
                "set RESHELVE_PSEUDONYM_KEYS as landing has it",
            )
        self.share, self.dropped, self.written = share, 0, 0
        self._store, self._ranker, self._client = store, ranker, client
        self._rows: deque[Logged] = deque()
        self._number = 0
        self._full, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"requests of {ranker}", daemon=True)
        self._thread.start()

    def offer(
        self,
        *,
        session: str,
        label: str,
        signature: str,
        text: str | None,
        version: int,
        outputs: Outputs,
        sent: NDArray[Any] | None = None,
        move: int | None = None,
        meant: int | None = None,
    ) -> None:
        """Hand over one answered request, if its session is in the sample. Never waits, never raises.

        `sent`: the items that were asked about, where the answer names none itself (a pair's scores). `move`: the pointer's,
        as the caller knew it; `meant`: the version that it meant for this session, whichever answered in the end.
        """
        if text is None or not sampled(session, self.share):
            return
        if len(self._rows) >= _MOST_ROWS:
            self.dropped += 1
            return
        items, scores = top(outputs.get("item", sent), outputs.get("score"))
        now = datetime.now(UTC)
        self._rows.append(
            Logged(now, session, version, label, signature, text[:_LONGEST_TEXT], items, scores, move, meant)
        )
        if len(self._rows) >= _PART_ROWS:
            self._full.set()

    def close(self) -> None:
        """Write what is left, once."""
        self._stop.set()
        self._full.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._full.wait(_PART_SECONDS)
            self._full.clear()
            self._flush()

    def _flush(self) -> None:
        """What cannot be written is kept for the next time, as far as it fits."""
        rows = [self._rows.popleft() for _ in range(min(len(self._rows), _MOST_ROWS))]
        try:
            for day in sorted({row.at.date() for row in rows}):
                self._write(day, [row for row in rows if row.at.date() == day])
                rows = [row for row in rows if row.at.date() != day]
        except (TryAgainError, ConfigurationError) as error:
            fit = max(0, _MOST_ROWS - len(self._rows))
            self.dropped += max(0, len(rows) - fit)
            self._rows.extendleft(reversed(rows[len(rows) - min(fit, len(rows)) :]))
            logger(ranker=self._ranker).warning(
                "requests are not logged", problem=error.headline, dropped=self.dropped
            )
            self._stop.wait(1.0)

    def _write(self, day: date, rows: list[Logged]) -> None:
        import pyarrow.parquet as pq

        body = io.BytesIO()
        pq.write_table(table(rows, self._keys, day), body, compression="zstd")
        self._number += 1
        name = f"{self._client}-{int(time.time())}-{self._number:06d}.parquet"
        self._store.put(f"{requests_prefix(self._ranker, day)}{name}", body.getvalue())
        self.written += len(rows)


def table(rows: Sequence[Logged], keys: Sequence[Key], day: date) -> pa.Table:
    """Rows as they are kept: at, session (pseudonym), version, label, signature, text (masked), items, scores, best, spread, move, meant."""
    import pyarrow as pa

    def column(values: Iterable[object], kind: pa.DataType) -> pa.Array:
        return pa.array(list(values), kind)

    return pa.table(
        {
            "at": column((row.at.replace(tzinfo=None) for row in rows), pa.timestamp("us")),
            "session": column((pseudonym(row.session, keys, day) for row in rows), pa.string()),
            "version": column((row.version for row in rows), pa.int64()),
            "label": column((row.label for row in rows), pa.string()),
            "signature": column((row.signature for row in rows), pa.string()),
            "text": column((mask(row.text) for row in rows), pa.string()),
            "items": column((row.items for row in rows), pa.list_(pa.string())),
            "scores": column((row.scores for row in rows), pa.list_(pa.float32())),
            "best": column((max(row.scores, default=None) for row in rows), pa.float32()),
            "spread": column(
                (max(row.scores) - min(row.scores) if row.scores else None for row in rows), pa.float32()
            ),
            "move": column((row.move for row in rows), pa.int64()),
            "meant": column((row.meant for row in rows), pa.int64()),
        }
    )


def top(items: NDArray[Any] | None, scores: NDArray[Any] | None) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The first row's ten best (a pair's rows are one answer); empty where the answer has none."""
    if scores is None or scores.dtype.kind not in "fiu" or not scores.size:
        return (), ()
    first = scores[0] if scores.ndim > 1 else scores
    order = np.argsort(-first.astype(float), kind="stable")[:TOP]
    named = None if items is None else items[0] if items.ndim > 1 else items
    found = [] if named is None or len(named) != len(first) else [named[place] for place in order]
    names = (name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found)
    return tuple(name[:_LONGEST_TEXT] for name in names), tuple(float(first[place]) for place in order)
