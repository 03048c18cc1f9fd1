"""One word for one thing: a class's name says which one is meant, wherever it is read."""

from __future__ import annotations

import ast
from collections import defaultdict

from reshelve.settings import PROJECT


def test_no_two_classes_share_a_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for folder in ("include/reshelve", "plugins/reshelve_airflow", "dags"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(PROJECT)))
    assert len(found) > 300
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
