"""What verbs share: their options, how they run, and how a result is shown."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import date
from typing import Annotated, Any

import typer
import yaml

from reshelve import errors
from reshelve.config.bases import listed
from reshelve.config.ranker import Ranker, ranker_names
from reshelve.config.yaml_models import warn_of_name
from reshelve.deployments.deployment_log import deployed_rankers
from reshelve.lineage.run import Run, parse_partition
from reshelve.names import require_ranker
from reshelve.pipeline.pinned_night import go_on
from reshelve.pipeline.references import load_ranker
from reshelve.result_text import block, lines, width_of
from reshelve.store.objects import object_store

RankerName = Annotated[str, typer.Option("--ranker", "-r", help="A file in include/rankers/, without .yaml.")]
Partition = Annotated[str, typer.Option("--partition", "-p", help="The day, YYYY-MM-DD.")]
Values = Annotated[
    list[str] | None, typer.Option("--set", help="Override a ranker key: training.epochs=2. May be repeated.")
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="Start from this model of include/bases.yaml; any other name is refused."),
]
Begun = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Continue a night pinned by `reshelve begin`: its id, or the 12 digits at the end of it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Source = Annotated[
    str, typer.Option("--source", "-s", help="A file in include/clickstreams/, without .yaml.")
]

_BASE = "model.base"


def overrides(values: list[str] | None, base: str | None = None) -> dict[str, Any]:
    """`["training.epochs=2"]` → `{"training.epochs": 2}`; `base` by its source. Raises ConfigurationError."""
    found: dict[str, Any] = {}
    for value in values or []:
        path, equals, text = value.partition("=")
        if not equals or not path:
            raise errors.ConfigurationError(f"--set {value}: expected path=value, as in training.epochs=2")
        found[path] = yaml.safe_load(text)
        if (new := Ranker.new_name(path)) != path:
            warn_of_name(f"--set {path}", path, new)
    found = Ranker.by_new_names(found)
    if base is not None:
        if _BASE in found:
            raise errors.ConfigurationError(f"--base with --set {_BASE}", "one of them names the base model")
        found[_BASE] = listed(base).source
    return found


def show(result: dict[str, Any], as_json: bool, title: str = "") -> None:
    """Print a result for a machine (one JSON object) or a person.

    With a `title` a person who follows a machine's log finds the result there too, as one block.
    """
    if as_json:
        sys.stdout.write(json.dumps(result, default=str) + "\n")
        if title:
            sys.stderr.write("\n".join(block(title, result, width_of(sys.stderr))) + "\n")
        return
    sys.stdout.write("\n".join(lines(result, width_of(sys.stdout))) + "\n")


def call(path: str, *arguments: Any, **keywords: Any) -> Any:
    """Import `module:function` only when its verb runs: torch or TensorFlow cost seconds."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments, **keywords)


def run_of(
    ranker: str,
    partition: str,
    values: list[str] | None,
    begun: str | None = None,
    base: str | None = None,
) -> Run:
    """The run of a ranker file, with `--set` and `--base`, on a day; or one that has begun, as it did.

    Raises ConfigurationError.
    """
    if begun is not None:
        if values or base is not None:
            said = "--set with --run" if values else "--base with --run"
            raise errors.ConfigurationError(said, "a night keeps the values it began with")
        return go_on(require_ranker(ranker), partition, begun)
    return Run.of(load_ranker(ranker, overrides(values, base)), parse_partition(partition))


def known_name(ranker: str) -> str:
    """The name of a ranker that is deployed or has a file, right or wrong: what is wrong in it must not keep a rollback away.

    Raises ConfigurationError where it is no ranker.
    """
    if require_ranker(ranker) in ranker_names() or _is_deployed(ranker):
        return ranker
    return load_ranker(ranker).name


def _is_deployed(ranker: str) -> bool:
    """A store that does not answer is no reason to say more of a name that has no file than that."""
    try:
        return ranker in deployed_rankers(object_store())
    except errors.ReshelveError:
        return False


def run_verb(
    name: str,
    path: str,
    ranker: str,
    partition: str,
    values: list[str] | None,
    begun: str | None,
    as_json: bool,
) -> None:
    """Run one stage, `module:function` of a Run, unless its result is there or another run of the day has made it; show it."""
    run = run_of(ranker, partition, values, begun)
    result = call("reshelve.pipeline.reuse:do_stage", run, name, lambda run: call(path, run))
    show(result, as_json, f"{name}: {run.id}")


def day(text: str | None) -> date | None:
    """The day, where one is named. Raises ConfigurationError."""
    return parse_partition(text) if text else None
