"""Verbs of published versions: release, take back, ask, and clean up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reshelve import errors
from reshelve.config.ranker import read_ranker
from reshelve.pipeline.pinned_night import rules_of
from reshelve.pipeline.references import load_ranker
from reshelve.result_text import width_of
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
        help="Only if this is still the newest move of the pointer (its number in `reshelve log`); "
        "otherwise exit 65.",
    ),
]
Night = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="The id of the night whose pinned ranker file sets the release rules; default: the current file.",
    ),
]


User = Annotated[
    str | None,
    typer.Option(
        help="Who is logged in to Airflow, which the DAGs fill in; empty: nobody, a schedule. "
        "Default: the name of the person's key here, else that of --by.",
    ),
]


@app.command()
def release(
    ranker: RankerName,
    version: Annotated[int, typer.Option("--version", "-v", help="A published version.")],
    by: Annotated[str, typer.Option(help="Who requests this; recorded in the deployment log.")] = "cli",
    user: User = None,
    reason: Annotated[str, typer.Option(help="The reason; recorded in the deployment log.")] = "",
    allow_older: Annotated[
        bool, typer.Option(help="Allow a version of an older partition to replace a newer one.")
    ] = False,
    allow_held: Annotated[bool, typer.Option(help="Release a version that the gate held.")] = False,
    until_approval: Annotated[
        bool,
        typer.Option(help="Exit 0 once the release waits for approval, which is requested elsewhere."),
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Continue a release; exit 65 if it was withdrawn meanwhile.")
    ] = False,
    if_sequence: IfSequence = None,
    night: Night = None,
    as_json: AsJson = False,
) -> None:
    """Roll out a published version: load, probe, shadow, canary, promote; exit 65 if rolled back, 75 if held."""
    result = call(
        "reshelve.rollout.release:release",
        rules_of(ranker, night),
        version,
        by=by,
        requested_by=call("reshelve.rollout.approvers:requester", user, by),
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
def refresh(
    ranker: RankerName,
    given: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A Parquet or CSV file with item_id and title; default: the landed product list."
        ),
    ] = None,
    allow_removed: Annotated[
        bool, typer.Option(help="Take a list that lacks more than a fifth of the version's items.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the model that serves with the newest product list, without training; exit 65 if its gate rejects it."""
    result = call(
        "reshelve.pipeline.refresh:refresh", load_ranker(ranker), given, allow_removed=allow_removed
    )
    show(result, as_json, f"refresh: {ranker}")
    if result.get("verdict") == "reject":
        raise errors.DataError(f"{ranker}: the refreshed version was rejected", str(result["reason"]))


@app.command()
def approve(
    ranker: RankerName,
    version: Annotated[int, typer.Option("--version", "-v", help="The version waiting for approval.")],
    by: Annotated[
        str,
        typer.Option(
            help="Who approves; recorded in the deployment log. Where another person has to, a key's name or "
            "Airflow's is recorded in its place."
        ),
    ],
    user: Annotated[
        str | None,
        typer.Option(
            help="Who is logged in to Airflow, which the DAGs fill in. Default: the name of the person's key here."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason; recorded in the deployment log.")] = "",
    if_sequence: IfSequence = None,
    night: Night = None,
    as_json: AsJson = False,
) -> None:
    """Approve a waiting release: promote its version."""
    result = call(
        "reshelve.rollout.release:approve",
        rules_of(ranker, night), version, by=by, user=user, reason=reason, if_sequence=if_sequence,
    )  # fmt: skip
    _show_release(result, as_json)


@app.command()
def withdraw(
    ranker: RankerName,
    version: Annotated[
        int | None,
        typer.Option("--version", "-v", help="Only if this version is being released; default: any."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who requests this; recorded in the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="The reason; recorded in the deployment log.")] = "",
    if_sequence: IfSequence = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw the release under way; the stable version keeps serving."""
    result = call(
        "reshelve.rollout.roll_back:withdraw",
        known_name(ranker), version=version, by=by, reason=reason, if_sequence=if_sequence,
    )  # fmt: skip
    show(result, as_json)


@app.command()
def log(ranker: RankerName, as_json: AsJson = False) -> None:
    """Show the deployment log: every move with author, reason and evidence; exit 65 if it is not a valid sequence."""
    found = call("reshelve.console.status:history", ranker)
    if as_json:
        show(found, True)
    for entry in [] if as_json else found["entries"]:
        sys.stdout.write(f"{entry['line']}\n")
    if found["problems"]:
        raise errors.DataError(f"{ranker}: the deployment log is damaged", "; ".join(found["problems"]))


@app.command()
def vouch(
    ranker: RankerName,
    move: Annotated[
        int,
        typer.Option(min=1, help="The newest move to vouch for; entries of the log beyond it are set aside."),
    ],
    by: Annotated[str, typer.Option(help="Who vouches; recorded in the deployment log.")],
    reason: Annotated[str, typer.Option(help="The reason; recorded in the deployment log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Vouch for a deployment log that does not verify, with a person's key: one from before moves were signed, or with a revoked key or foreign entries in it. Look at `reshelve log` first."""
    moved = call(
        "reshelve.deployments.vouching:vouch",
        object_store(), known_name(ranker), move, by=by, reason=reason,
    )  # fmt: skip
    show({"ranker": ranker, "vouched": move, "sequence": moved.sequence, "stable": moved.stable}, as_json)


@app.command()
def rollback(
    ranker: RankerName,
    to: Annotated[
        int | None, typer.Option("--to", help="The version to roll back to; default: the previous one.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who requests this; recorded in the deployment log.")] = "cli",
    reason: Annotated[str, typer.Option(help="The reason; recorded in the deployment log.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Show what would happen, and change nothing.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            help="An earlier attempt may have rolled back already; if so, only wait for the agents."
        ),
    ] = False,
    if_sequence: IfSequence = None,
    as_json: AsJson = False,
) -> None:
    """Serve the previous version again, in seconds, without training and without Airflow."""
    result = call(
        "reshelve.rollout.roll_back:rollback",
        known_name(ranker), to=to, by=by, reason=reason, dry_run=dry_run, resume=resume, if_sequence=if_sequence,
    )  # fmt: skip
    show(result, as_json)


@app.command()
def predict(
    ranker: RankerName,
    history: Annotated[
        str | None, typer.Option(help="next_item: titles of the history, newest first, separated by ' ; '.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="search, pair: what the customer typed.")] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            "--item", help="search, pair: item ids to rank; default: the catalogue, or a shortlist."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many items to return.")] = 5,
    version: Annotated[int | None, typer.Option(help="Query this version instead of the stable one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Query the model server for a ranked answer."""
    result = call(
        "reshelve.client.predict:predict",
        read_ranker(ranker), history=history, query=query, items=items, top=top, version=version,
    )  # fmt: skip
    if as_json:
        show(result, True)
        return
    sys.stdout.write(f"{ranker} version {result['version']}\n")
    for place, item in enumerate(result["items"], 1):
        sys.stdout.write(f"{place:3}. {item['score']:8.4f}  {item['item']:<12} {item['title']}\n")
    for note in result.get("notes", []):
        sys.stderr.write(f"note: {note}\n")


@app.command()
def evaluate(
    version: Annotated[int, typer.Option("--version", "-v", help="A published version.")],
    source: Source,
    ranker: Annotated[
        str | None,
        typer.Option(
            "--ranker", "-r", help="The version's ranker; needed if several rankers have that version number."
        ),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from", help="First day to evaluate; default: the newest days, as many as the gate holds out."
        ),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last day to evaluate; default: the newest.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="map@5, recall@20, mrr, …; default: the ranker file's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a published version on validated days of any source: metrics with intervals, compared with baselines; no verdict."""
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
    """Show what serves, where, since when, and its health; exit 65 if stored data of a ranker is damaged."""
    found = call("reshelve.console.status:status", ranker)
    if as_json:
        show(found, True)
    else:
        page = call("reshelve.console.status_page:page", object_store(), found, width_of(sys.stdout))
        sys.stdout.write("\n".join(page) + "\n")
    damaged = {name: one["problem"] for name, one in found.items() if "problem" in one}
    if damaged:
        said = "; ".join(f"{name}: {problem}" for name, problem in damaged.items())
        raise errors.DataError(f"what is stored of {', '.join(damaged)} is damaged", said)


@app.command()
def housekeeping(
    ranker: RankerName,
    dry_run: Annotated[bool, typer.Option(help="Show what would be deleted, and delete nothing.")] = True,
    as_json: AsJson = False,
) -> None:
    """Delete old versions and runs; never the stable, previous, canary or newest version."""
    show(
        call("reshelve.pipeline.retention:clean", read_ranker(ranker), dry_run=dry_run),
        as_json,
        f"housekeeping: {ranker}",
    )
