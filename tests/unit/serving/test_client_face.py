"""What a shop's application imports: one public face, light, whose exceptions are one tree."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import reshelve.client
from reshelve.client import errors
from reshelve.settings import PROJECT

_LOADED = """
import sys
from reshelve.client import Answer, Caller, RankingClient, object_store, serves
with Caller("recommend", ["127.0.0.1:1"]):
    pass
print(sorted({name.partition(".")[0] for name in sys.modules} & {"airflow", "boto3", "botocore", "tensorflow"} - (
    set() if any(name.startswith("tensorflow.python") for name in sys.modules) else {"tensorflow"})))
"""


def test_importing_it_loads_neither_tensorflow_nor_airflow_nor_boto3() -> None:
    """The message modules of TensorFlow are loaded, below a name without its runtime."""
    found = subprocess.run(
        [sys.executable, "-c", _LOADED], check=True, capture_output=True, text=True, timeout=120
    )
    assert found.stdout.strip() == "[]"


def test_what_is_public_is_what_is_named() -> None:
    public = {
        name
        for name, value in vars(reshelve.client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(reshelve.client.__all__)
    assert set(errors.__all__) <= public


def test_the_docstring_is_the_tree_of_exceptions() -> None:
    assert errors.__doc__
    above: list[type[BaseException]] = []
    drawn = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ((?:[│├└─ ]{4})*)([A-Z]\w+Error)\b", line)
        if found is None:
            continue
        depth, kind = len(found.group(1)) // 4, getattr(errors, found.group(2))
        assert depth == 0 or issubclass(kind, above[depth - 1]), line
        above[depth:] = [kind]
        drawn.append(kind.__name__)
    assert sorted(drawn) == sorted(errors.__all__)


@pytest.mark.parametrize("name", reshelve.client.__all__)
def test_the_guide_names_all_that_is_public(name: str) -> None:
    guide = (PROJECT / "docs" / "how-to" / "python-client.md").read_text()
    assert name in guide and "reshelve.client." not in guide, "the guide imports from the one public place"
