"""Verbs of the watch: look at what serves, and hold releases or let them go on."""

from __future__ import annotations

from typing import Annotated

import typer

from reshelve.config.ranker import read_ranker
from reshelve.verbs.options import AsJson, RankerName, call, known_name, show

app = typer.Typer()


@app.command()
def monitor(
    ranker: RankerName,
    dry_run: Annotated[bool, typer.Option(help="Show the decision and action, and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what serves, decide, and act within the configured limits; exit 0 whatever the decision."""
    show(
        call("reshelve.monitoring.watch:look", read_ranker(ranker), dry_run=dry_run),
        as_json,
    )


@app.command()
def hold(
    ranker: RankerName,
    by: Annotated[str, typer.Option(help="Who freezes releases; recorded.")],
    reason: Annotated[str, typer.Option(help="The reason, shown to anyone who tries to release.")],
    as_json: AsJson = False,
) -> None:
    """Freeze a ranker's releases: `reshelve release` and `approve` exit with 75 until `reshelve lift`."""
    show(call("reshelve.rollout.holding:hold", known_name(ranker), by=by, reason=reason), as_json)


@app.command()
def lift(
    ranker: RankerName,
    by: Annotated[str, typer.Option(help="Who resumes releases; recorded.")] = "cli",
    as_json: AsJson = False,
) -> None:
    """Resume a ranker's releases, whoever froze them."""
    show(call("reshelve.rollout.holding:lift", known_name(ranker), by=by), as_json)


@app.command()
def metrics(
    address: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 9108,
) -> None:
    """Serve the watch's newest data on every ranker as Prometheus metrics (/metrics)."""
    call("reshelve.monitoring.exporter:serve", address, port)
