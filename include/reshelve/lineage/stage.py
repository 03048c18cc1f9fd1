"""What a stage of a night is: a declaration, and the identity that follows from it.

Two runs of a ranker's day whose identities of a stage are equal would do the same work: the second takes over the first's result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from reshelve.config.ranker import Ranker
from reshelve.lineage.kind_code import kind_digest
from reshelve.lineage.results import StageResult

if TYPE_CHECKING:
    from reshelve.lineage.run import Run

PACKAGE = Path(__file__).parents[1]

Found = Callable[["Run", bool], dict[str, Any] | None]
"""What a stage reads that no other stage made, in words that JSON has; None where that cannot be known. The flag: whether a
base model may be fetched to know it."""


def nothing_else(run: Run, fetch: bool) -> dict[str, Any] | None:
    """Of a stage that reads what stages before it made, and nothing else."""
    return {}


@dataclass(frozen=True)
class Stage:
    """One stage, declared."""

    name: str
    result: type[StageResult]
    needs: tuple[str, ...]  # stages whose files or results it reads
    reads: tuple[str, ...]  # sections or dotted keys of the ranker file
    code: tuple[str, ...]  # packages, or dotted modules, below reshelve: whatever its work imports of them
    work: tuple[
        str, ...
    ]  # the modules that it begins in: its function's, and those of the processes that it starts
    facets: tuple[str, ...] = ()  # of the ranker's kind, that the code asks
    found: Found = nothing_else
    own: str = ""  # why each run does it itself; empty where a result may be taken over


class StageIdentity(BaseModel):
    """What a stage's result follows from. `watch`, `owner` and the like are in none."""

    model_config = ConfigDict(frozen=True)

    stage: str
    ranker: str
    partition: date
    needs: dict[str, str]  # stage → its digest; empty where that was not done
    values: dict[str, Any]  # section or key of the ranker file → its value
    code: dict[str, str]  # package or module, or what of the kind → digest of its source
    found: dict[str, Any]

    @property
    def digest(self) -> str:
        """16 hex digits over all of it."""
        document = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def identity(
    stage: Stage,
    ranker: Ranker,
    partition: date,
    *,
    needs: Mapping[str, str],
    found: Mapping[str, Any],
    package: Path = PACKAGE,
) -> StageIdentity:
    """The stage's identity, with the code that lies in `package`."""
    document = ranker.model_dump(mode="json")
    of_kind = {f"{ranker.kind}'s {facet}": kind_digest(ranker.kind, facet, package) for facet in stage.facets}
    return StageIdentity(
        stage=stage.name,
        ranker=ranker.name,
        partition=partition,
        needs=dict(needs),
        values={path: _at(document, path) for path in ("kind", *stage.reads)},
        code={name: source_digest(name, package) for name in stage.code} | of_kind,
        found=json.loads(json.dumps(found)),
    )


@lru_cache(maxsize=256)
def source_digest(name: str, package: Path = PACKAGE) -> str:
    """12 hex digits of the sha256 over a package's (or a module's) source. Raises ValueError where there is none."""
    home = package.joinpath(*name.split("."))
    files = sorted(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
    if not files or not files[0].is_file():
        raise ValueError(f"{name} is no package or module below {package}")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document[key]
    return document
