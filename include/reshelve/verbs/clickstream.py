"""Verbs of the clickstream: land, validate, and what to do about a quarantine."""

from __future__ import annotations

from typing import Annotated

import typer

from reshelve import errors
from reshelve.lineage import parse_partition
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
        str | None, typer.Option("--from", help="First day to land; default: the first there is.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last day to land; default: the last there is.")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            "-p",
            help="One day as its night lands it: with the rows that came late for the neighbour_days before it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Map and judge one day (default: the first) and land nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Map a source's raw files onto clickstream partitions and land them on S3.

    Exit 73 where some days hold other rows already, or rows stand in the files of another day, and all others are
    landed; 65 where a day that was tried would be stopped; 75 where the mapping tells files by {date} and none has been delivered for the day."""
    if partition and (first or last):
        raise errors.ConfigurationError("--partition is one day: give it, or --from and --to")
    if dry_run:
        if last:
            raise errors.ConfigurationError("--dry-run tries one day: give --partition or --from, not --to")
        tried = call("reshelve.clickstream.trial:try_day", source, day(partition or first))
        show(tried, as_json, f"tried: {source}")
        if tried["verdict"] == "stop":
            raise errors.DataError(str(tried["headline"]))
        return
    try:
        if partition:
            result = call("reshelve.clickstream.landing:land_day", source, parse_partition(partition))
        else:
            result = call("reshelve.clickstream.landing:land", source, day(first), day(last))
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
    """Check a partition with Great Expectations; quarantine bad rows; exit 65 on a stop verdict."""
    if partition:
        result = call("reshelve.clickstream.validation:validate", source, parse_partition(partition))
    else:
        result = call("reshelve.clickstream.validation:validate_range", source, day(first), day(last))
    show(result, as_json, f"verdict: {source}")
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
    result = call(
        "reshelve.clickstream.releases:release_quarantine",
        source, parse_partition(partition), rules, by=by, reason=reason,
    )  # fmt: skip
    show(result, as_json, f"verdict: {source}")
    if result["verdict"] == "stop":
        raise errors.DataError(str(result["headline"]))


@app.command()
def verdict(source: Source, partition: Partition, as_json: AsJson = False) -> None:
    """The verdict on a partition: exit 65 where it is stop, 75 while it has landed and is not judged yet."""
    show(call("reshelve.clickstream.readiness:readiness", source, parse_partition(partition)), as_json)


@app.command()
def expire(
    source: Source,
    dry_run: Annotated[bool, typer.Option(help="Say what would go and delete nothing.")] = True,
    as_json: AsJson = False,
) -> None:
    """Delete the days that a source keeps no longer (`keep_days`): landed rows, verdicts, good and quarantined rows.

    Exit 75 or 78 where something of them stayed."""
    result = call("reshelve.clickstream.expiry:expire", source, dry_run=dry_run)
    show(result, as_json, f"expire: {source}")
    if "left" in result:
        headline, _, detail = result["problem"].partition("\n")
        raise (errors.TryAgainError if result["again"] else errors.ConfigurationError)(headline, detail)
