"""What a model server has to answer before callers are sent to it: the label `stable` of every ranker it can serve.

An open port says little: TensorFlow Serving listens while labels do not point anywhere yet. The agent writes what the
pointers want into `<models>/labels.wanted`; `include/compose/ready.sh` asks the server for each, from inside its container.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable
from pathlib import Path

from reshelve.files import open_to_others, write_whole

WANTED_FILE = "labels.wanted"
_PATIENCE = 5.0  # seconds


def write_wanted_labels(models: Path, rankers: Iterable[str]) -> None:
    """One line `ranker stable` each, in place of what was there; empty while nothing has been released."""
    text = "".join(f"{ranker} stable\n" for ranker in sorted(rankers)).encode()
    path = models / WANTED_FILE
    if not (path.is_file() and path.read_bytes() == text):
        write_whole(path, text)
    open_to_others(path)  # the model server's own user reads it, also where it was closed before


def unanswered(models: Path, rest: str) -> list[str]:
    """The wanted labels that the model server at a REST address does not answer, as `ready.sh` asks it; all, where it is away.

    `labels.wanted` itself where the agent has not written it yet.
    """
    path = models / WANTED_FILE
    if not path.is_file():
        return [WANTED_FILE]
    wanted = path.read_text(encoding="utf-8").splitlines()
    return [line for line in wanted if not _answers(rest, *line.split(" "))]


def _answers(rest: str, ranker: str, label: str) -> bool:
    """The metadata of a label is that of its version; a label that points nowhere has none."""
    try:
        url = f"http://{rest}/v1/models/{ranker}/labels/{label}/metadata"
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            return bool(answer.status == 200)
    except OSError:  # urllib's errors are, too
        return False
