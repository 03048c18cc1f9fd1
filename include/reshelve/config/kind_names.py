"""Which kinds of ranker there are, by name: told without importing one, for this is the ground floor.

A kind is a folder of `reshelve/kinds`, or an entry point of the group `reshelve.kinds` in any installed package. Its object,
`KIND` in the folder's `__init__.py`, is imported by `kind_object`, when a ranker file names it.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from reshelve.errors import ConfigurationError

GROUP = "reshelve.kinds"
_FOLDER = Path(__file__).parents[1] / "kinds"


def kind_names() -> list[str]:
    """The names of all kinds, sorted."""
    own = {path.parent.name for path in _FOLDER.glob("*/__init__.py")}
    return sorted(own | _plugged(tuple(sys.path)).keys())


def require_kind(name: str) -> str:
    """`name`, where there is such a kind. Raises ValueError, which pydantic shows with the file and the line."""
    if not home_of(name):
        known = ", ".join(kind_names())
        raise PydanticCustomError("kind", "expected a kind of ranker: {known}", {"known": known})
    return name


@cache
def kind_object(name: str) -> Any:
    """The one object of a kind, imported. Raises ConfigurationError where there is none of that name.

    Its type is `reshelve.kind.Kind`, which this floor does not know: ask `reshelve.kind_registry.kind_of`.
    """
    home = home_of(name)
    if not home:
        raise ConfigurationError(f"no kind of ranker is called {name!r}", f"known: {', '.join(kind_names())}")
    return importlib.import_module(home).KIND


def home_of(name: str) -> str:
    """The package of a kind, as Python imports it; empty where there is none. Installed packages are asked only for what is no folder here."""
    if name.isidentifier() and (_FOLDER / name / "__init__.py").is_file():
        return f"{GROUP}.{name}"
    return _plugged(tuple(sys.path)).get(name, "")


@cache
def _plugged(path: tuple[str, ...]) -> dict[str, str]:
    """The packages of the kinds that are entry points, by name. Looking through all that is installed takes 30 ms."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


KindName = Annotated[str, AfterValidator(require_kind)]
