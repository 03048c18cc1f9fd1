"""An object store and keys for one benchmark alone, and the settings that reach them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reshelve.platform import seaweedfs
from reshelve.processes import free_port, stop_children
from reshelve.settings import settings
from reshelve.store import keys
from reshelve.store.objects import object_store


@contextmanager
def own_store(home: str | None, bucket: str) -> Iterator[Path]:
    """Start it in `home` (default: thrown away at the end), where a second run finds what the first one left.

    The store ends with the benchmark, however that ends; where it is asked to (SIGTERM), what is thrown away goes too.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix=f"reshelve-{bucket}-") as scratch:
        directory = Path(home or scratch).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        os.environ |= {"RESHELVE_HOME": str(directory / "home"), "RESHELVE_BUCKET": bucket}
        try:
            seaweedfs.start_seaweedfs(directory / "store", port, directory / "store.log")
            os.environ |= seaweedfs.environment(port, seaweedfs.credentials(directory / "store"))
            settings.cache_clear()
            object_store.cache_clear()
            keys.make(if_missing=True)  # nothing unsigned is loaded, by a benchmark either
            object_store().create_bucket()
            yield directory
        finally:
            stop_children()  # a signal that came while the store was made left nobody who knows its id
