"""YAML as forms take it: plain values, each key once, every mistake named with its file and line.

Whatever somebody puts into a file costs no more than an error about that file: nothing is built from tags, and neither
the size of a file nor what its aliases stand for is without bounds.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from reshelve.errors import ConfigurationError

MOST_BYTES = 128 * 1024  # of a file; the longest of ours has 7 KB
MOST_VALUES = 20_000  # of a file, an alias counted as what it stands for

# A database takes neither NUL nor half a character, and nobody types the others.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """A key written twice is a mistake that YAML would hide; one that is no plain value is none that a form has."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as error:  # 2024-13-45, or an integer of 5,000 digits
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable) or isinstance(key, tuple):
            raise _wrong(key_node, "a key must be text")
        if key in seen:
            raise _wrong(key_node, f"key {key!r} is written twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_yaml(path: Path) -> Any:
    """The document in `path`. Raises ConfigurationError with file and line where it is no YAML, or no plain one."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigurationError(f"{path}:1: expected at most {MOST_BYTES:,} bytes")
        return _document(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}:1: cannot be read", str(error)) from error


def compose(path: Path) -> yaml.Node:
    """The nodes of a file that `load_yaml` has taken, for their lines."""
    node: yaml.Node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return node


def _document(path: Path, text: str) -> Any:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigurationError(
            f"{path}:{line}: a character that YAML does not allow", "expected valid YAML"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: {error.problem}", "expected valid YAML") from error
    except RecursionError:
        raise ConfigurationError(f"{path}:1: too many nested brackets", "expected valid YAML") from None
    finally:
        if loader is not None:
            loader.dispose()


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values a node stands for. Raises ConstructorError for one that is no plain value, or for too many."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise _wrong(node, "it contains itself")
        return count
    known[id(node)] = None
    if node.tag not in _PLAIN:
        raise _wrong(
            node, f"{node.tag.removeprefix('tag:yaml.org,2002:')!r} is not an accepted type of value"
        )
    count = 1
    if isinstance(node, yaml.ScalarNode):
        if found := _UNWRITABLE.search(node.value):
            raise _wrong(node, f"a value with the character {found.group()!a}")
    else:
        parts = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        count += sum(_count(part, known) for part in parts)
    if count > MOST_VALUES:
        raise _wrong(node, f"expected at most {MOST_VALUES:,} values")
    known[id(node)] = count
    return count


def _wrong(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
