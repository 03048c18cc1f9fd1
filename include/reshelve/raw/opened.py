"""A raw file's bytes, unpacked where they are packed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unpacked(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """The file open for reading, without its gzip."""
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        yield file
