"""The code of a kind of ranker that a stage runs: what it asks of the kind's object, wherever the kind's package is.

A stage asks a kind by its name, so no import of the stage's own code leads there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from reshelve.config.kind_names import GROUP, home_of
from reshelve.errors import ConfigurationError


@lru_cache(maxsize=256)
def kind_digest(kind: str, facet: str, package: Path) -> str:
    """12 hex digits of the sha256 over the source of `kind_modules`."""
    digest = hashlib.sha256()
    for name, path in sorted(kind_modules(kind, facet, package).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def kind_modules(kind: str, facet: str, package: Path) -> dict[str, Path]:
    """Module → file of a kind's object, of its facet, and of what these import of the kind's package and of `reshelve.kinds`.

    `package`: the folder of this package. Raises ConfigurationError where the kind's package has no such file.
    """
    home = home_of(kind)
    found: dict[str, Path] = {}
    left = [home, f"{home}.{facet}"]
    while left:
        name = left.pop()
        path = _file(name, package)
        if path is not None and name not in found:
            found[name] = path
            left += [one for one in _imported(name, path) if one.startswith((f"{home}.", f"{GROUP}."))]
    if f"{home}.{facet}" not in found:
        raise ConfigurationError(f"the kind {kind!r} has no {facet}", f"expected {facet}.py in {home}")
    return found


def _imported(name: str, path: Path) -> set[str]:
    """All that a module imports, also inside functions: modules, and names that may be some."""
    around = name if path.name == "__init__.py" else name.rpartition(".")[0]
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            place = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(place, around) if node.level else place
            named |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return named


def _file(name: str, package: Path) -> Path | None:
    """The file of a module, which is not imported; None where there is none."""
    root, *parts = name.split(".")
    top = package if root == package.name else _folder(root)
    if top is None:
        return None
    home = top.joinpath(*parts)
    places = (home / "__init__.py", home.with_suffix(".py"))
    return next((path for path in places if path.is_file()), None)


def _folder(root: str) -> Path | None:
    spec = importlib.util.find_spec(root)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None
