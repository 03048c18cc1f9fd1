"""Verbs for the tokens of those who call the gateway."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reshelve.verbs.options import AsJson, call, show

app = typer.Typer()
tokens_app = typer.Typer(
    help="The tokens of those who call the gateway: make, list, revoke.", no_args_is_help=True
)
app.add_typer(tokens_app, name="tokens")

Name = Annotated[str, typer.Argument(help="Whose token it is: lower-case letters, digits and hyphens.")]


@tokens_app.command("make")
def tokens_make(
    name: Name,
    ranker: Annotated[
        list[str] | None,
        typer.Option("--ranker", "-r", help="A ranker that it may ask; may be repeated. Default: all."),
    ] = None,
    days: Annotated[int, typer.Option(help="Days until it expires; 0: never.", min=0, max=3650)] = 365,
    requests_per_second: Annotated[int, typer.Option(help="Limit of requests per second.")] = 1000,
    concurrent: Annotated[int, typer.Option(help="Limit of requests at once.")] = 512,
    body_kilobytes: Annotated[int, typer.Option(help="Limit of one request's body.")] = 64,
    rows: Annotated[int, typer.Option(help="Limit of rows in one request.")] = 128,
    given: Annotated[
        bool, typer.Option("--given", help="Keep a token that callers have already: read it from stdin.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a token and show it, once: only its salted hash is kept. A running gateway accepts it at once."""
    show(
        call(
            "reshelve.gateway.token_verbs:make", name, rankers=ranker or [], days=days,
            given=sys.stdin.readline().strip() if given else None, requests_per_second=requests_per_second,
            concurrent=concurrent, body_kilobytes=body_kilobytes, rows=rows,
        ),
        as_json,
    )  # fmt: skip


@tokens_app.command("list")
def tokens_list(as_json: AsJson = False) -> None:
    """List tokens: name, rankers, expiry and limits; nothing secret."""
    show(call(f"reshelve.gateway.token_verbs:{'describe' if as_json else 'in_words'}"), as_json)


@tokens_app.command("revoke")
def tokens_revoke(name: Name, as_json: AsJson = False) -> None:
    """Revoke a token: a running gateway refuses it at once."""
    show(call("reshelve.gateway.token_verbs:revoke", name), as_json)
