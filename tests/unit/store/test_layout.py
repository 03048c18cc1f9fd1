"""Where things lie in the bucket is said in one file, and by the clickstream for its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import reshelve
from reshelve.store import layout

_PACKAGE = Path(reshelve.__file__).parent
_FOLDER = re.compile(
    r"(models|deployments|runs|requests|monitoring|encoded|clickstream|validated|catalogue)/$"
)
_SAID = {"store/layout.py", "clickstream/events.py"}
_NO_KEYS = {"tracking/datasets.py"}  # names of data sets, as OpenLineage has them


def _folders(tree: ast.AST) -> list[str]:
    """Where an f-string begins with a folder of the bucket."""
    return [
        f"line {node.lineno}: {first.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        and isinstance(first := node.values[0], ast.Constant)
        and _FOLDER.match(str(first.value))
    ]


def test_no_other_file_makes_a_key_of_its_own() -> None:
    assert _folders(ast.parse('f"runs/{run}/gate"'))
    found = {
        str(path.relative_to(_PACKAGE)): said
        for path in _PACKAGE.rglob("*.py")
        if str(path.relative_to(_PACKAGE)) not in _SAID | _NO_KEYS
        and (said := _folders(ast.parse(path.read_text())))
    }
    assert found == {}


def test_every_folder_ends_where_its_keys_begin() -> None:
    made = [
        layout.models_of("a"),
        layout.deployments_of("a"),
        layout.runs_of("a"),
        layout.run_folder("a/b/c"),
    ]
    assert made == ["models/a/", "deployments/a/", "runs/a/", "runs/a/b/c/"]
    assert layout.models_of("a").startswith(layout.MODELS)
    assert layout.deployments_of("a").startswith(layout.DEPLOYMENTS)
