"""Verbs of the watch: look at what serves, and hold releases or let them go on."""

from __future__ import annotations

from typing import Annotated

import typer

from reshelve.rankers import load_ranker
from reshelve.verbs.options import AsJson, RankerName, call, known_name, show

app = typer.Typer()


@app.command()
def monitor(
    ranker: RankerName,
    dry_run: Annotated[
        bool, typer.Option(help="Say what would be decided and done, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at what serves, judge it, decide by the table and act within bounds; exit 0 whatever was decided."""
    show(
        call("reshelve.monitoring.watch:look", load_ranker(ranker, references=False), dry_run=dry_run),
        as_json,
    )


@app.command()
def hold(
    ranker: RankerName,
    by: Annotated[str, typer.Option(help="Who holds, for the record.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever wants to release.")],
    as_json: AsJson = False,
) -> None:
    """Hold a ranker's releases: `reshelve release` and `approve` exit 75 until they are let go on."""
    show(call("reshelve.serving.holding:hold", known_name(ranker), by=by, reason=reason), as_json)


@app.command()
def lift(
    ranker: RankerName,
    by: Annotated[str, typer.Option(help="Who lets releases go on, for the record.")] = "cli",
    as_json: AsJson = False,
) -> None:
    """Let a ranker's releases go on, whoever held them."""
    show(call("reshelve.serving.holding:lift", known_name(ranker), by=by), as_json)


@app.command()
def metrics(
    address: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 9108,
) -> None:
    """Serve the newest looks at every ranker as Prometheus metrics (/metrics)."""
    call("reshelve.monitoring.exporter:serve", address, port)
