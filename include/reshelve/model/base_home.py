"""Where a base model's files are on this disk, found without reading any of its weights.

Only safetensors weights are accepted: a pickle runs code of whoever wrote it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from reshelve.config.bases import HUB_NAME, is_directory
from reshelve.errors import MisfitError
from reshelve.settings import PROJECT

BASE = "model.base"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def home_of(uri: str) -> Path | None:
    """The directory that `model.base` names; None where it has to be fetched first (s3:// and the hub).

    Raises MisfitError where there is no such model, or it lacks a file.
    """
    if uri.startswith("package:"):
        home = _of_package(uri)
    elif is_directory(uri):
        home = _directory(uri)
    elif uri.startswith("s3://") or HUB_NAME.match(uri):
        return None
    else:
        raise MisfitError(
            BASE,
            f"{uri!r} does not name a model",
            "expected package:NAME, a directory, s3://bucket/prefix or a hub name",
        )
    require_files(uri, (entry.name for entry in home.iterdir() if entry.is_file()))
    return home


def require_files(uri: str, names: Iterable[str]) -> None:
    """Raise MisfitError where a base's files are not those that are read."""
    names = list(names)
    if not any(name.endswith(".safetensors") for name in names):
        pickled = [name for name in names if name.endswith(_PICKLED)]
        if pickled:
            raise MisfitError(
                BASE,
                f"{uri} has its weights only as a pickle ({pickled[0]}), which is refused",
                "a pickle can run any code; expected *.safetensors",
            )
        raise MisfitError(BASE, f"{uri} has no weights", "expected config.json and *.safetensors")
    for needed in ("config.json", "tokenizer.json"):
        if needed not in names:
            raise MisfitError(
                BASE, f"{uri} lacks {needed}", "expected config.json, tokenizer.json and *.safetensors"
            )


def _directory(uri: str) -> Path:
    """Relative to the project, so that it is the same for every process."""
    try:
        home = (PROJECT / Path(uri).expanduser()).resolve()
        known = home.is_dir()
    except (OSError, RuntimeError, ValueError):  # no path at all
        known = False
    if not known:
        raise MisfitError(BASE, f"{uri} is not a directory", "expected config.json and *.safetensors in it")
    return home


def _of_package(uri: str) -> Path:
    name = uri.removeprefix("package:")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise MisfitError(BASE, f"package {name!r} is not installed", f"try: pip install {name}")
    homes = sorted(
        config.parent
        for root in spec.submodule_search_locations
        for config in Path(root).rglob("config.json")
        if any(config.parent.glob("*.safetensors"))
    )
    if not homes:
        raise MisfitError(
            BASE,
            f"package {name!r} has no model",
            "expected a directory with config.json and *.safetensors",
        )
    return homes[0]
