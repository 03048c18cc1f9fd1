"""Raw files as DuckDB is given them: by a name of ours where theirs would mean other files, and not larger than allowed."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import duckdb

from reshelve.clickstream.database import RawFileError, text
from reshelve.raw.opened import is_packed, unpacked
from reshelve.settings import settings

_PATTERN = re.compile(r"[*?\[\]{}\\]")  # what DuckDB, Spark or a shell takes for a pattern
_LONGEST, _KEPT = 200, 40  # bytes of a name, and the characters that are kept of a longer one
_PIECE = 1 << 20  # bytes
_SMALL = 256 << 20  # bytes that any file may grow to, however small it is
_MOST_OF_GZIP = 1032  # times: deflate cannot grow more
_GIGABYTE = 1 << 30


def plain_name(name: str, number: int) -> str:
    """A file's name; or one made of its place among the others, where DuckDB would take it for a pattern or a disk refuses it."""
    if not _PATTERN.search(name) and name.strip(".") and len(os.fsencode(name)) <= _LONGEST:
        return name
    return f"{number}-{_PATTERN.sub('_', name[-_KEPT:])}"


def local_path(path: Path, scratch: Path, number: int) -> Path:
    """`path`, or a link to it below `scratch` whose name is no pattern. Folders such as `dt=2011-08-01` stay: they are columns."""
    if not _PATTERN.search(str(path)):
        return path
    link = folder_of(path, scratch / f"link-{number}") / plain_name(path.name, number)
    link.symlink_to(path.resolve())
    return link


def folder_of(path: Path, above: Path) -> Path:
    """A new folder below `above`, with those of a path that are columns."""
    made = above.joinpath(*(part for part in path.parts[:-1] if "=" in part))
    made.mkdir(parents=True)
    return made


def check_packed(files: Iterable[Path]) -> None:
    """Raise RawFileError for the first packed file that holds more than the settings allow, or is damaged."""
    for path in files:
        if _may_grow(path):
            for _ in _pieces(path):
                pass


def unpacked_copies(files: Iterable[Path], scratch: Path) -> list[Path]:
    """`files`, with a copy below `scratch` in place of each packed one: so it is unpacked once, and not by every query.

    Raises as `check_packed`. Copies take at most a quarter of the disk's room; further files are only checked.
    """
    room, made = shutil.disk_usage(scratch).free // 4, []
    for number, path in enumerate(files):
        if not _may_grow(path):
            made.append(path)
            continue
        copy = folder_of(path, scratch / f"unpacked-{number}") / without_packing(
            plain_name(path.name, number)
        )
        with copy.open("wb") as out:
            for piece in _pieces(path):
                room -= len(piece)
                if room >= 0:
                    out.write(piece)
        if room < 0:
            copy.unlink()
        made.append(path if room < 0 else copy)
    return made


def without_packing(name: str) -> str:
    """`clicks.csv.gz` → `clicks.csv`."""
    return re.sub(r"(?i)\.(gz|zst)$", "", name)


def _may_grow(path: Path) -> bool:
    """Whether a file is packed, and may hold more than any file may."""
    is_gzip = path.name.lower().endswith(".gz")
    return is_packed(path) and not (is_gzip and path.stat().st_size * _MOST_OF_GZIP <= _SMALL)


def _pieces(path: Path) -> Iterator[bytes]:
    """What a packed file holds, piece by piece."""
    size, done = path.stat().st_size, 0
    limit = _limit(size)
    with unpacked(path) as file:
        while piece := _next_piece(file, path):
            done += len(piece)
            if done > limit:
                raise _too_large(path, size, limit)
            yield piece


def _next_piece(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(_PIECE)
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RawFileError(f"{path} is damaged: it cannot be unpacked to its end") from error


def check_parquet(db: duckdb.DuckDBPyConnection, path: Path, local: Path) -> None:
    """Raise RawFileError where a Parquet file holds more than the settings allow, by its footer; duckdb.Error where it has none.

    At least a byte a value: a column of one value takes no room in the file, and all of it in a table. `local`: what
    DuckDB is given for `path`.
    """
    ((found,),) = db.execute(
        f"SELECT sum(greatest(total_uncompressed_size, num_values)) FROM parquet_metadata({text(local)})"
    ).fetchall()
    size = path.stat().st_size
    if (found or 0) > (limit := _limit(size)):
        raise _too_large(path, size, limit)


def _limit(size: int) -> int:
    """Bytes that a packed file of `size` bytes may hold."""
    most = int(settings().raw_max_gigabytes * _GIGABYTE)
    return min(most, max(_SMALL, int(size * settings().raw_max_ratio)))


def _too_large(path: Path, size: int, limit: int) -> RawFileError:
    by_size = limit == int(settings().raw_max_gigabytes * _GIGABYTE)
    name = "RESHELVE_RAW_MAX_GIGABYTES" if by_size else "RESHELVE_RAW_MAX_RATIO"
    value = settings().raw_max_gigabytes if by_size else settings().raw_max_ratio
    return RawFileError(
        f"{path} has {size:,} bytes and holds more than {limit:,} ({name}={value:g}); raise the limit if the file is what it should be"
    )
