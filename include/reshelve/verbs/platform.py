"""Verbs of the platform of one machine, and of the store that any platform needs."""

from __future__ import annotations

from typing import Annotated

import typer

from reshelve import errors
from reshelve.verbs.options import (
    AsJson,
    RankerName,
    call,
    day,
    show,
)

app = typer.Typer()


@app.command("check-store")
def check_store(as_json: AsJson = False) -> None:
    """Create the bucket if missing, and check that the object store supports the conditional writes that releases need; otherwise exit 78."""
    show(call("reshelve.store.prepare:check_store"), as_json)


platform_app = typer.Typer(help="The local platform: up, down, status, run, night.", no_args_is_help=True)
app.add_typer(platform_app, name="platform")


@platform_app.command("up")
def platform_up() -> None:
    """Start PostgreSQL, SeaweedFS, Airflow's four processes, the model server and its agent; processes that die are restarted."""
    call("reshelve.platform.machine:up")


@platform_app.command("down")
def platform_down() -> None:
    """Stop everything that `up` started."""
    call("reshelve.platform.machine:down")


@platform_app.command("status")
def platform_status(as_json: AsJson = False) -> None:
    """Show what runs, where and since when; exit 75 unless everything is healthy."""
    found = call("reshelve.platform.machine:status")
    services = found.pop("services")
    lines = {
        name: " ".join(
            str(service[key]) for key in ("state", "pid", "address", "since", "note") if service.get(key)
        )
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
    """Start the platform and run the first night; if that is done, show the newest night."""
    call("reshelve.platform.night:run", ranker, day(partition))


@platform_app.command("night")
def platform_night(
    ranker: RankerName = "recommend",
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="Default: the sample's next night.")
    ] = None,
) -> None:
    """Land a partition, have the scheduler run its night, and show progress and a summary."""
    call("reshelve.platform.night:night", ranker, day(partition))
