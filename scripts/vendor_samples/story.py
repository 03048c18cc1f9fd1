"""What happened in a drawn shop, before any vendor tells it: visits of three days by the clocks of Los Angeles."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("America/Los_Angeles")
DAYS = tuple(date(2024, 3, 9) + timedelta(days=number) for number in range(3))  # clocks change on the second
VISITS = 14  # a day
SHOWN = 6


@dataclass(frozen=True)
class Product:
    """An item. Its id is a text, however much it looks like a number."""

    sku: str
    name: str
    category: str
    price: str
    number: int  # for vendors that know items by numbers


@dataclass(frozen=True)
class Visit:
    """Somebody searches, is shown a list, clicks, and may buy."""

    number: int
    visitor: int
    user: str | None  # where somebody has logged in
    consent: bool
    day: date
    start: datetime  # UTC
    query: str
    shown: tuple[Product, ...]
    clicked: int  # its place among those shown, from 0
    bought: tuple[tuple[Product, int], ...]

    @property
    def product(self) -> Product:
        """What is clicked, and put into the cart where anything is bought."""
        return self.shown[self.clicked]

    def at(self, seconds: float) -> datetime:
        """So long after its start."""
        return self.start + timedelta(seconds=seconds)


_SKUS = ("00412", "0412", "412", "12E4", "1.10", "1.1", "LAMP-7", "9007199254740993", "0x1F", "MUG/02")
_WORDS = ("red", "blue", "small", "oak", "glass", "brass")
_THINGS = ("lamp", "mug", "tray", "vase", "kettle")


def products() -> list[Product]:
    """The catalogue."""
    random, made = Random(1), []
    for number in range(24):
        thing = _THINGS[number % len(_THINGS)]
        sku = _SKUS[number] if number < len(_SKUS) else f"SKU-{number:03d}"
        name = f"{_WORDS[number % len(_WORDS)]} {thing}, {number + 3} cm".capitalize()
        made.append(
            Product(sku, name, f"Home/{thing}s", f"{random.randint(300, 9900) / 100:.2f}", 1000 + number)
        )
    return made


def visits() -> list[Visit]:
    """All of them, by their start. One in four agrees to nothing."""
    random, listed, made = Random(2), products(), []
    for day in DAYS:
        for _ in range(VISITS):
            local = datetime(
                day.year, day.month, day.day, random.randrange(4, 24), random.randrange(55), tzinfo=ZONE
            )
            shown = tuple(random.sample(listed, SHOWN))
            visitor, clicked = random.randrange(30), min(random.randrange(SHOWN), random.randrange(SHOWN))
            bought = [(shown[clicked], random.randint(1, 3)), *((one, 1) for one in random.sample(listed, 2))]
            made.append(
                Visit(
                    number=len(made),
                    visitor=visitor,
                    user=f"customer-{visitor}" if visitor % 3 == 0 else None,
                    consent=random.random() > 0.25,
                    day=day,
                    start=local.astimezone(UTC),
                    query=random.choice(_THINGS) + random.choice(["", " red", " glass"]),
                    shown=shown,
                    clicked=clicked,
                    bought=tuple(dict(bought).items()) if random.random() < 0.6 else (),
                )
            )
    return sorted(made, key=lambda visit: visit.start)


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One object a line; gzip where the name says so."""
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> None:
    """A header and rows; what a row does not have is empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, out.getvalue())


def _write(path: Path, content: str) -> None:
    body = content.encode()
    path.write_bytes(gzip.compress(body, mtime=0) if path.name.endswith(".gz") else body)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Lines as they are; gzip where the name says so."""
    _write(path, "".join(f"{line}\n" for line in lines))


def filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that have no value, as exports to JSON leave them out."""
    return {key: value for key, value in row.items() if value not in (None, [], {})}
