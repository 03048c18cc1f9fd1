"""Verbs of the clickstream: land, validate, and what to do about a quarantine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from reshelve import errors
from reshelve.lineage.run import parse_partition
from reshelve.verbs.options import (
    AsJson,
    Partition,
    Source,
    call,
    day,
    show,
)

app = typer.Typer()


@app.command()
def land(
    source: Source,
    first: Annotated[
        str | None, typer.Option("--from", help="First day to land; default: the earliest.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day to land; default: the latest.")] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            "-p",
            help="One day, as its night lands it: with late rows of the neighbour_days before it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Map and validate one day (default: the earliest) without landing it."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Map a source's raw files to clickstream partitions and land them on S3.

    Exit 73 if some days already hold other rows, or rows are in the files of another day, and all others are landed; 65 if a dry run's day would be stopped; 75 if the mapping's files have a {date} and none has arrived for the day."""
    if partition and (first or last):
        raise errors.ConfigurationError("--partition is one day: give it, or --from and --to")
    if dry_run:
        if last:
            raise errors.ConfigurationError("--dry-run tries one day: give --partition or --from, not --to")
        tried = call("reshelve.landing.trial:try_day", source, day(partition or first))
        show(tried, as_json, f"tried: {source}")
        if tried["verdict"] == "stop":
            raise errors.DataError(str(tried["headline"]))
        return
    try:
        if partition:
            result = call("reshelve.landing.land:land_day", source, parse_partition(partition))
        else:
            result = call("reshelve.landing.land:land", source, day(first), day(last))
    except errors.PartlyDoneError as error:
        show(error.result, as_json, f"land: {source}")
        raise
    except errors.NotDeliveredError as error:
        if as_json:  # for whoever waits: other reasons to try again print nothing
            show({"source": source, "delivered": False, "headline": error.headline}, as_json)
        raise
    show(result, as_json, f"land: {source}")


@app.command()
def validate(
    source: Source,
    partition: Annotated[str | None, typer.Option("--partition", "-p", help="One day, YYYY-MM-DD.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First of several days.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last of several days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate a partition with Great Expectations; quarantine bad rows; exit 65 if the verdict is stop."""
    if partition:
        result = call("reshelve.validation.validate:validate", source, parse_partition(partition))
    else:
        result = call("reshelve.validation.validate:validate_range", source, day(first), day(last))
    show(result, as_json, f"verdict: {source}")
    if result["verdict"] == "stop":
        raise errors.DataError(str(result["headline"]))


@app.command("release-quarantine")
def release_quarantine(
    source: Source,
    partition: Partition,
    rules: Annotated[
        list[str],
        typer.Option("--rule", help="The quarantine rule whose rows to restore; may be repeated."),
    ],
    by: Annotated[str, typer.Option(help="Who requests this; recorded.")] = "cli",
    reason: Annotated[str, typer.Option(help="The reason; recorded.")] = "",
    as_json: AsJson = False,
) -> None:
    """Restore quarantined rows as good rows of a new verdict; exit 65 if that verdict is stop."""
    result = call(
        "reshelve.validation.waivers:release_quarantine",
        source, parse_partition(partition), rules, by=by, reason=reason,
    )  # fmt: skip
    show(result, as_json, f"verdict: {source}")
    if result["verdict"] == "stop":
        raise errors.DataError(str(result["headline"]))


@app.command()
def verdict(source: Source, partition: Partition, as_json: AsJson = False) -> None:
    """Show the verdict on a partition: exit 65 if it is stop, 75 if the partition has landed but is not validated yet."""
    show(call("reshelve.validation.readiness:readiness", source, parse_partition(partition)), as_json)


@app.command()
def expire(
    source: Source,
    dry_run: Annotated[bool, typer.Option(help="Show what would be deleted, and delete nothing.")] = True,
    as_json: AsJson = False,
) -> None:
    """Delete a source's days older than `keep_days`: landed rows, verdicts, good and quarantined rows.

    Exit 75 or 78 if something could not be deleted."""
    result = call("reshelve.validation.expiry:expire", source, dry_run=dry_run)
    show(result, as_json, f"expire: {source}")
    if "left" in result:
        headline, _, detail = result["problem"].partition("\n")
        raise (errors.TryAgainError if result["again"] else errors.ConfigurationError)(headline, detail)


@app.command()
def forget(
    source: Source,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", help="A user id, as in the raw files or as landed; may be repeated."),
    ] = None,
    users: Annotated[
        Path | None, typer.Option("--users", help="A file of user ids, one a line; - reads standard input.")
    ] = None,
    session: Annotated[
        list[str] | None,
        typer.Option("--session", help="A session id of a visitor without a user id; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete people's rows from all that is kept of a source, and keep them from coming back; safe to repeat.

    Exit 75 while a night of the source is under way: repeat it when that has ended. Exit 73 if a file could not be
    reached; it is named, and all others are done."""
    try:
        result = call(
            "reshelve.pipeline.forget:forget", source, [*(user or []), *_listed(users)], session or []
        )
    except errors.PartlyDoneError as error:
        show(error.result, as_json, f"forget: {source}")
        raise
    show(result, as_json, f"forget: {source}")


def _listed(path: Path | None) -> list[str]:
    """Raises ConfigurationError where the file cannot be read."""
    if path is None:
        return []
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigurationError(
            f"--users {path}: cannot be read", "expected UTF-8, one id a line"
        ) from error
    return text.splitlines()
