"""The `reshelve` command: one verb per stage of the night, and a few for people.

Logs go to stderr; with `--json` stdout carries exactly one JSON object, the result. Exit codes: 0 done,
75 try again, 65 the data is bad, 78 the configuration is bad.
"""

from __future__ import annotations

import importlib
import json
import sys
from datetime import date
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from reshelve import errors
from reshelve.lineage import Run, parse_partition, run_stage
from reshelve.logs import configure_logs
from reshelve.platform.configuration import use_local_platform
from reshelve.processes import die_with_parent
from reshelve.rankers import load_ranker

app = typer.Typer(
    name="reshelve",
    help="Retrain an online shop's ranking models every night, and roll them out safely.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

RankerName = Annotated[str, typer.Option("--ranker", "-r", help="A file in include/rankers/, without .yaml.")]
Partition = Annotated[str, typer.Option("--partition", "-p", help="The day, YYYY-MM-DD.")]
Values = Annotated[
    list[str] | None, typer.Option("--set", help="Override a ranker key: training.epochs=2. May be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Source = Annotated[
    str, typer.Option("--source", "-s", help="A file in include/clickstreams/, without .yaml.")
]


def overrides(values: list[str] | None) -> dict[str, Any]:
    """`["training.epochs=2"]` → `{"training.epochs": 2}`. Raises ConfigurationError."""
    found: dict[str, Any] = {}
    for value in values or []:
        path, equals, text = value.partition("=")
        if not equals or not path:
            raise errors.ConfigurationError(f"--set {value}: expected path=value, as in training.epochs=2")
        found[path] = yaml.safe_load(text)
    return found


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result for a machine (one JSON object) or a person (aligned lines)."""
    if as_json:
        sys.stdout.write(json.dumps(result, default=str) + "\n")
        return
    width = max((len(key) for key in result), default=0)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for key, value in result.items():
        text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
        console.print(f"{key:<{width}}  {text}")


def _call(path: str, *arguments: Any, **keywords: Any) -> Any:
    """Import `module:function` only when its verb runs: torch or TensorFlow cost seconds."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments, **keywords)


def _run(ranker: str, partition: str, values: list[str] | None) -> Run:
    return Run.of(load_ranker(ranker, overrides(values)), parse_partition(partition))


def _stage(
    name: str, path: str, ranker: str, partition: str, values: list[str] | None, as_json: bool
) -> None:
    run = _run(ranker, partition, values)
    show(run_stage(run, name, lambda work: _call(path, work)), as_json)


def _day(text: str | None) -> date | None:
    return parse_partition(text) if text else None


@app.command()
def land(
    source: Source,
    first: Annotated[
        str | None, typer.Option("--from", help="First day to land; default: the sample's first.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last day to land; default: the sample's last.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Map a source's raw files onto clickstream partitions and land them on S3."""
    show(_call("reshelve.clickstream.landing:land", source, _day(first), _day(last)), as_json)


@app.command()
def validate(
    source: Source,
    partition: Annotated[str | None, typer.Option("--partition", "-p", help="One day, YYYY-MM-DD.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First of several days.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last of several days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a partition with Great Expectations; quarantine bad rows; exit 65 on a stop verdict."""
    if partition:
        result = _call("reshelve.clickstream.validation:validate", source, parse_partition(partition))
    else:
        result = _call("reshelve.clickstream.validation:validate_range", source, _day(first), _day(last))
    show(result, as_json)
    if result["verdict"] == "stop":
        raise errors.DataError(str(result["headline"]))


@app.command("release-quarantine")
def release_quarantine(
    source: Source,
    partition: Partition,
    rules: Annotated[
        list[str],
        typer.Option("--rule", help="A quarantine rule whose rows are good after all; may be repeated."),
    ],
    by: Annotated[str, typer.Option(help="Who asks, for the record.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Merge quarantined rows into the good rows of a new verdict; exit 65 where that verdict is stop."""
    result = _call(
        "reshelve.clickstream.releases:release_quarantine",
        source, parse_partition(partition), rules, by=by, reason=reason,
    )  # fmt: skip
    show(result, as_json)
    if result["verdict"] == "stop":
        raise errors.DataError(str(result["headline"]))


@app.command()
def verdict(source: Source, partition: Partition, as_json: AsJson = False) -> None:
    """The verdict on a partition: exit 65 where it is stop, 75 while it has landed and is not judged yet."""
    show(_call("reshelve.clickstream.readiness:readiness", source, parse_partition(partition)), as_json)


@app.command()
def examples(
    ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False
) -> None:
    """Turn validated partitions into tokenised training examples, split by time."""
    _stage("examples", "reshelve.examples.build:build_examples", ranker, partition, values, as_json)


tune_app = typer.Typer(
    help="Search hyperparameters with Hyperopt: run, or ask, evaluate and tell.", no_args_is_help=True
)
app.add_typer(tune_app, name="tune")


@tune_app.command("run")
def tune_run(
    ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False
) -> None:
    """The whole search in this process: ask, evaluate and tell until the budget is spent."""
    _stage("tune", "reshelve.tuning.search:search", ranker, partition, values, as_json)


@tune_app.command("ask")
def tune_ask(
    ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False
) -> None:
    """The next trials to evaluate: {"trials": [0, 1], …}; an empty list when the search is over."""
    show(_call("reshelve.tuning.search:ask", _run(ranker, partition, values)), as_json)


@tune_app.command("evaluate")
def tune_evaluate(
    ranker: RankerName,
    partition: Partition,
    trial: Annotated[int, typer.Option("--trial", help="An id given by ask.", min=0)],
    values: Values = None,
    as_json: AsJson = False,
) -> None:
    """Train one trial on its budget and record its loss."""
    show(_call("reshelve.tuning.search:evaluate", _run(ranker, partition, values), trial), as_json)


@tune_app.command("tell")
def tune_tell(
    ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False
) -> None:
    """Close the search with the trials evaluated so far: the best values, for train."""
    _stage("tune", "reshelve.tuning.search:tell", ranker, partition, values, as_json)


@app.command()
def train(ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False) -> None:
    """Fine-tune the pretrained transformer under horovodrun; resumes from its last checkpoint."""
    _stage("train", "reshelve.training.launch:train", ranker, partition, values, as_json)


@app.command()
def blend(ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False) -> None:
    """Search rankers: weigh what the shop remembers of its searches and what the transformer reads."""
    _stage("blend", "reshelve.memory.stage:blend", ranker, partition, values, as_json)


@app.command()
def compress(
    ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False
) -> None:
    """Quantize the trained model, and say what it cost in agreement."""
    _stage("compress", "reshelve.compression.compress:compress", ranker, partition, values, as_json)


@app.command()
def package(ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False) -> None:
    """Build the SavedModel that takes strings, with its warm-up requests."""
    _stage("package", "reshelve.packaging.package:package", ranker, partition, values, as_json)


@app.command()
def gate(ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False) -> None:
    """Judge the packaged bytes beside baselines and champion: promote, hold or reject."""
    _stage("gate", "reshelve.evaluation.gate:gate", ranker, partition, values, as_json)


@app.command()
def publish(ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False) -> None:
    """Put the packaged version on S3 under the next integer; its manifest, written last, makes it exist."""
    _stage("publish", "reshelve.store.versions:publish", ranker, partition, values, as_json)


@app.command()
def release(
    ranker: RankerName,
    version: Annotated[int, typer.Option("--version", "-v", help="A published version.")],
    by: Annotated[str, typer.Option(help="Who asks, for the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    allow_older: Annotated[bool, typer.Option(help="Let an older partition replace a newer one.")] = False,
    allow_held: Annotated[bool, typer.Option(help="Release a version that the gate held.")] = False,
    as_json: AsJson = False,
) -> None:
    """Roll a published version out: load beside, probe, shadow, canary, promote; exit 65 rolled back, 75 held."""
    result = _call(
        "reshelve.serving.release:release",
        load_ranker(ranker),
        version,
        by=by,
        reason=reason,
        allow_older=allow_older,
        allow_held=allow_held,
    )
    _show_release(result, as_json)


def _show_release(result: dict[str, Any], as_json: bool) -> None:
    show(result, as_json)
    if result["state"] == "rolled_back":
        raise errors.DataError(str(result["headline"]))
    if result["state"] == "held":
        raise errors.TryAgainError(str(result["headline"]))


@app.command()
def approve(
    ranker: RankerName,
    version: Annotated[int, typer.Option("--version", "-v", help="The version that waits.")],
    by: Annotated[str, typer.Option(help="Who approves, for the deployment log.")],
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let a release that waits for a person go on, and promote it."""
    result = _call("reshelve.serving.release:approve", load_ranker(ranker), version, by=by, reason=reason)
    _show_release(result, as_json)


@app.command()
def withdraw(
    ranker: RankerName,
    by: Annotated[str, typer.Option(help="Who asks, for the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    as_json: AsJson = False,
) -> None:
    """End the release under way; the stable version serves on."""
    show(_call("reshelve.serving.release:withdraw", load_ranker(ranker), by=by, reason=reason), as_json)


@app.command()
def log(ranker: RankerName, as_json: AsJson = False) -> None:
    """The deployment log: every move with who, why and on what evidence; exit 65 where it explains nothing."""
    found = _call("reshelve.serving.status:history", ranker)
    if as_json:
        show(found, True)
    for entry in [] if as_json else found["entries"]:
        Console(soft_wrap=True, highlight=False, markup=False).print(entry["line"])
    if found["problems"]:
        raise errors.DataError(f"{ranker}: the deployment log is damaged", "; ".join(found["problems"]))


@app.command()
def rollback(
    ranker: RankerName,
    to: Annotated[
        int | None, typer.Option("--to", help="The version to go back to; default: the previous one.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who asks, for the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Say what would happen and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the previous version again, in seconds, without training and without Airflow."""
    result = _call(
        "reshelve.serving.release:rollback", load_ranker(ranker), to=to, by=by, reason=reason, dry_run=dry_run
    )
    show(result, as_json)


@app.command()
def predict(
    ranker: RankerName,
    history: Annotated[
        str | None, typer.Option(help="next_item: bought item titles, newest first, separated by ' ; '.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="search, pair: what the customer typed.")] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            "--item", help="search, pair: item ids to order; default: the catalogue, or a shortlist."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many items to answer.")] = 5,
    version: Annotated[int | None, typer.Option(help="Ask one version instead of the stable one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the model server for a ranked answer."""
    result = _call(
        "reshelve.serving.predict:predict",
        load_ranker(ranker), history=history, query=query, items=items, top=top, version=version,
    )  # fmt: skip
    if as_json:
        show(result, True)
        return
    Console().print(f"{ranker} version {result['version']}", highlight=False)
    for place, item in enumerate(result["items"], 1):
        Console().print(
            f"{place:3}. {item['score']:8.4f}  {item['item']:<12} {item['title']}",
            highlight=False,
            markup=False,
        )


@app.command()
def status(
    ranker: Annotated[str | None, typer.Option("--ranker", "-r", help="One ranker; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """What should serve, and what the agents report really serves."""
    show(_call("reshelve.serving.release:status", ranker), as_json)


@app.command()
def housekeeping(
    ranker: RankerName,
    dry_run: Annotated[bool, typer.Option(help="Say what would go and delete nothing.")] = True,
    as_json: AsJson = False,
) -> None:
    """Delete old versions and old work; never what is stable, previous, canary or newest."""
    show(_call("reshelve.store.retention:clean", load_ranker(ranker), dry_run=dry_run), as_json)


@app.command()
def agent(
    models: Annotated[str, typer.Option(help="The directory the model server watches.")],
    server: Annotated[str, typer.Option(help="gRPC address of the model server.")] = "127.0.0.1:8500",
    name: Annotated[str, typer.Option(help="This agent's name in its reports.")] = "local",
    every: Annotated[float, typer.Option(help="Seconds between looks at the pointer.", min=0.1)] = 1.0,
) -> None:
    """Run beside a model server: copy, verify, load, label and report what the pointers say."""
    _call("reshelve.serving.agent:run_agent", models=models, server=server, name=name, every=every)


@app.command("model-server")
def model_server(
    models: Annotated[str, typer.Option(help="The directory with models.config and the versions.")],
    grpc: Annotated[str, typer.Option(help="gRPC address.")] = "127.0.0.1:8500",
    rest: Annotated[str, typer.Option(help="REST address.")] = "127.0.0.1:8501",
) -> None:
    """The local model server: TensorFlow Serving's gRPC and REST API over real SavedModels."""
    _call("reshelve.serving.model_server:serve", models=models, grpc_address=grpc, rest_address=rest)


keys_app = typer.Typer(
    help="The keys that sign versions: make, show, and sign what is published.", no_args_is_help=True
)
app.add_typer(keys_app, name="keys")


@keys_app.command("make")
def keys_make(
    if_missing: Annotated[bool, typer.Option(help="Keep a private key that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key pair: the private part (mode 0600) signs what is published here, the public part is trusted here."""
    show(_call("reshelve.store.keys:make", if_missing=if_missing), as_json)


@keys_app.command("show")
def keys_show(as_json: AsJson = False) -> None:
    """Which key signs here, and which are trusted."""
    show(_call("reshelve.store.keys:describe"), as_json)


@keys_app.command("sign")
def keys_sign(
    ranker: RankerName,
    unsigned: Annotated[
        bool, typer.Option(help="Also versions that were never signed: the bucket is believed, once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sign published versions with the present key, as keys are replaced."""
    show(_call("reshelve.store.keys:sign", ranker, unsigned=unsigned), as_json)


platform_app = typer.Typer(help="The platform of one machine: up, down, status, night.", no_args_is_help=True)
app.add_typer(platform_app, name="platform")


@platform_app.command("up")
def platform_up() -> None:
    """Start PostgreSQL, SeaweedFS, Airflow's four processes, the model server and its agent."""
    _call("reshelve.platform.machine:up")


@platform_app.command("down")
def platform_down() -> None:
    """Stop everything that `up` started, by process group."""
    _call("reshelve.platform.machine:down")


@platform_app.command("status")
def platform_status(as_json: AsJson = False) -> None:
    """What runs, where, and since when; exit 75 unless all of it is healthy."""
    found = _call("reshelve.platform.machine:status")
    services = found.pop("services")
    lines = {
        name: " ".join(str(service[key]) for key in ("state", "pid", "address", "since") if service.get(key))
        for name, service in services.items()
    }
    show({**found, "services": services} if as_json else {**found, **lines}, as_json)
    if not found["healthy"]:
        raise typer.Exit(errors.EXIT_TRY_AGAIN)


@platform_app.command("run")
def platform_run(
    ranker: RankerName = "recommend",
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="Default: the sample's first night.")
    ] = None,
) -> None:
    """Start the platform and run the first night; again, show the newest night that was run."""
    _call("reshelve.platform.night:run", ranker, _day(partition))


@platform_app.command("night")
def platform_night(
    ranker: RankerName = "recommend",
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="Default: the sample's next night.")
    ] = None,
) -> None:
    """Land a partition, let the scheduler run its night, show progress and a summary."""
    _call("reshelve.platform.night:night", ranker, _day(partition))


def main() -> None:
    """Run the command; turn our errors into a headline on stderr and their exit code."""
    configure_logs()
    die_with_parent()
    use_local_platform()
    try:
        sys.exit(app(standalone_mode=False) or errors.EXIT_DONE)  # click answers the code of a typer.Exit
    except errors.ReshelveError as error:
        sys.stderr.write(f"reshelve: {error.headline}\n")
        if error.detail:
            sys.stderr.write(f"{error.detail}\n")
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        show_usage = getattr(error, "show", None)  # click's own usage errors
        if show_usage is None:
            raise
        show_usage()
        sys.exit(errors.EXIT_CONFIGURATION)


if __name__ == "__main__":
    main()
