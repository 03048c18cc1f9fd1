"""Verbs of published versions: release, take back, ask, and clean up."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from reshelve import errors
from reshelve.blocks import width_of
from reshelve.pinned_night import rules_of
from reshelve.rankers import load_ranker
from reshelve.store.objects import object_store
from reshelve.verbs.options import (
    AsJson,
    RankerName,
    Source,
    call,
    day,
    known_name,
    show,
)

app = typer.Typer()

IfSequence = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Only while the newest move of the pointer is this one (the number in `reshelve log`); else exit 65.",
    ),
]
Night = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="The night, by its id, whose ranker file says how it is released; default: the file as it is now.",
    ),
]


@app.command()
def release(
    ranker: RankerName,
    version: Annotated[int, typer.Option("--version", "-v", help="A published version.")],
    by: Annotated[str, typer.Option(help="Who asks, for the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    allow_older: Annotated[bool, typer.Option(help="Let an older partition replace a newer one.")] = False,
    allow_held: Annotated[bool, typer.Option(help="Release a version that the gate held.")] = False,
    until_approval: Annotated[
        bool,
        typer.Option(help="End well (exit 0) where the release waits for a person, who is asked elsewhere."),
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with a release; one that was taken back meanwhile ends (exit 65).")
    ] = False,
    if_sequence: IfSequence = None,
    night: Night = None,
    as_json: AsJson = False,
) -> None:
    """Roll a published version out: load beside, probe, shadow, canary, promote; exit 65 rolled back, 75 held."""
    result = call(
        "reshelve.serving.release:release",
        rules_of(ranker, night),
        version,
        by=by,
        reason=reason,
        allow_older=allow_older,
        allow_held=allow_held,
        resume=resume,
        if_sequence=if_sequence,
    )
    _show_release(result, as_json, until_approval)


def _show_release(result: dict[str, Any], as_json: bool, until_approval: bool = False) -> None:
    show(result, as_json, f"release: {result.get('ranker', '')} {result.get('version', '')}".rstrip())
    if result["state"] == "rolled_back":
        raise errors.DataError(str(result["headline"]))
    if result["state"] == "held" and not (until_approval and result["awaits_approval"]):
        raise errors.TryAgainError(str(result["headline"]))


@app.command()
def approve(
    ranker: RankerName,
    version: Annotated[int, typer.Option("--version", "-v", help="The version that waits.")],
    by: Annotated[str, typer.Option(help="Who approves, for the deployment log.")],
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    if_sequence: IfSequence = None,
    night: Night = None,
    as_json: AsJson = False,
) -> None:
    """Let a release that waits for a person go on, and promote it."""
    result = call(
        "reshelve.serving.release:approve",
        rules_of(ranker, night), version, by=by, reason=reason, if_sequence=if_sequence,
    )  # fmt: skip
    _show_release(result, as_json)


@app.command()
def withdraw(
    ranker: RankerName,
    version: Annotated[
        int | None,
        typer.Option("--version", "-v", help="Only where this version is being released; default: any."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who asks, for the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why, for the deployment log.")] = "",
    if_sequence: IfSequence = None,
    as_json: AsJson = False,
) -> None:
    """End the release under way; the stable version serves on."""
    result = call(
        "reshelve.serving.going_back:withdraw",
        known_name(ranker), version=version, by=by, reason=reason, if_sequence=if_sequence,
    )  # fmt: skip
    show(result, as_json)


@app.command()
def log(ranker: RankerName, as_json: AsJson = False) -> None:
    """The deployment log: every move with who, why and on what evidence; exit 65 where it explains nothing."""
    found = call("reshelve.serving.status:history", ranker)
    if as_json:
        show(found, True)
    for entry in [] if as_json else found["entries"]:
        sys.stdout.write(f"{entry['line']}\n")
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
    resume: Annotated[
        bool,
        typer.Option(help="A try before this one may have gone back already: then only wait for agents."),
    ] = False,
    if_sequence: IfSequence = None,
    as_json: AsJson = False,
) -> None:
    """Serve the previous version again, in seconds, without training and without Airflow."""
    result = call(
        "reshelve.serving.going_back:rollback",
        known_name(ranker), to=to, by=by, reason=reason, dry_run=dry_run, resume=resume, if_sequence=if_sequence,
    )  # fmt: skip
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
    result = call(
        "reshelve.serving.predict:predict",
        load_ranker(ranker, references=False), history=history, query=query, items=items, top=top, version=version,
    )  # fmt: skip
    if as_json:
        show(result, True)
        return
    sys.stdout.write(f"{ranker} version {result['version']}\n")
    for place, item in enumerate(result["items"], 1):
        sys.stdout.write(f"{place:3}. {item['score']:8.4f}  {item['item']:<12} {item['title']}\n")


@app.command()
def evaluate(
    version: Annotated[int, typer.Option("--version", "-v", help="A published version.")],
    source: Source,
    ranker: Annotated[
        str | None,
        typer.Option("--ranker", "-r", help="Whose version; needed where several have that number."),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from", help="First day to ask about; default: the newest, as many as the gate holds out."
        ),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last day to ask about; default: the newest.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="map@5, recall@20, mrr, …; default: the ranker file's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a published version on validated days of any source: metrics with intervals, beside baselines; no verdict."""
    found = call(
        "reshelve.evaluation.evaluate:evaluate",
        version, source, ranker, day(first), day(last), metric,
    )  # fmt: skip
    if as_json:
        show(found, True)
        return
    sys.stdout.write("\n".join(call("reshelve.evaluation.evaluation_page:page", found)) + "\n")


@app.command()
def status(
    ranker: Annotated[str | None, typer.Option("--ranker", "-r", help="One ranker; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """What serves, where, since when, and whether it is well; exit 65 where something of a ranker is damaged."""
    found = call("reshelve.serving.status:status", ranker)
    if as_json:
        show(found, True)
    else:
        page = call("reshelve.serving.status_page:page", object_store(), found, width_of(sys.stdout))
        sys.stdout.write("\n".join(page) + "\n")
    damaged = {name: one["problem"] for name, one in found.items() if "problem" in one}
    if damaged:
        said = "; ".join(f"{name}: {problem}" for name, problem in damaged.items())
        raise errors.DataError(f"what is stored of {', '.join(damaged)} is damaged", said)


@app.command()
def housekeeping(
    ranker: RankerName,
    dry_run: Annotated[bool, typer.Option(help="Say what would go and delete nothing.")] = True,
    as_json: AsJson = False,
) -> None:
    """Delete old versions and old work; never what is stable, previous, canary or newest."""
    show(
        call("reshelve.store.retention:clean", load_ranker(ranker, references=False), dry_run=dry_run),
        as_json,
        f"housekeeping: {ranker}",
    )
