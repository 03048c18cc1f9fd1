"""A raw file's bytes, unpacked where they are packed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa


def is_packed(path: Path) -> bool:
    """Whether DuckDB unpacks the file, which its name tells."""
    return path.name.lower().endswith((".gz", ".zst"))


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The file open for reading, without its gzip or zstd."""
    name = path.name.lower()
    if name.endswith(".zst"):
        with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, "zstd") as file:
            yield io.BufferedReader(cast(io.RawIOBase, file))
        return
    with gzip.open(path) if name.endswith(".gz") else path.open("rb") as plain:
        yield cast(IO[bytes], plain)
