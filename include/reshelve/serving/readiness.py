"""What a model server has to answer before callers are sent to it: the label `stable` of every deployed ranker.

An open port says little: TensorFlow Serving listens while labels do not point anywhere yet. The agent writes what the
pointers want into `<models>/labels.wanted`; `include/compose/ready.sh` asks the server for each, from inside its container.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reshelve.store.deployments import Pointer

WANTED_FILE = "labels.wanted"


def write_wanted_labels(models: Path, pointers: Iterable[Pointer]) -> None:
    """One line `ranker label` each, in place of what was there; empty while nothing was ever released."""
    lines = sorted(f"{pointer.ranker} stable\n" for pointer in pointers if pointer.stable is not None)
    path, text = models / WANTED_FILE, "".join(lines)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    partial = models / f".{WANTED_FILE}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
