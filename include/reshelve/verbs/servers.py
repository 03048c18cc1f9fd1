"""Verbs that run beside traffic, and the keys that they trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reshelve.store.roles import Role
from reshelve.verbs.options import (
    AsJson,
    RankerName,
    call,
    show,
)

app = typer.Typer()


@app.command()
def agent(
    models: Annotated[str, typer.Option(help="The model server's directory of versions.")],
    server: Annotated[str, typer.Option(help="gRPC address of the model server.")] = "127.0.0.1:8500",
    name: Annotated[str, typer.Option(help="This agent's name in its reports.")] = "local",
    every: Annotated[float, typer.Option(help="Seconds between reads of the pointer.", min=0.1)] = 1.0,
    admin: Annotated[
        str,
        typer.Option(
            help="Where the server takes model lists, if not at --server: HOST:PORT or unix:/path/of/its.sock."
        ),
    ] = "",
) -> None:
    """Run next to a model server: copy, verify, load and label the versions that the pointers name, and report."""
    call("reshelve.agent.agent:run_agent", models=models, server=server, name=name, every=every, admin=admin)


@app.command("model-server")
def model_server(
    models: Annotated[str, typer.Option(help="The directory with models.config and the versions.")],
    grpc: Annotated[str, typer.Option(help="gRPC address.")] = "127.0.0.1:8500",
    rest: Annotated[str, typer.Option(help="REST address.")] = "127.0.0.1:8501",
) -> None:
    """Run the local model server: TensorFlow Serving's gRPC and REST API for SavedModels."""
    call("reshelve.modelserver.model_server:serve", models=models, grpc_address=grpc, rest_address=rest)


@app.command()
def gateway(
    listen: Annotated[str, typer.Option(help="Address to listen on, with TLS.")] = "127.0.0.1:8443",
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            help="REST address of a model server; may be repeated. Default: RESHELVE_MODEL_SERVER_REST.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM certificate chain. Default: a self-signed certificate for localhost."),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM private key of the certificate.")] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            help="A host that callers may ask for; may be repeated. Default: those of the certificate.",
        ),
    ] = None,
    per_address: Annotated[
        int,
        typer.Option(
            help="Requests per second, and as many at once, from one address. 0: no limit, for a gateway behind a load balancer.",
            min=0,
        ),
    ] = 1000,
    timeout: Annotated[
        float, typer.Option(help="Seconds for one request, retries included.", min=0.05, max=60)
    ] = 1.0,
    every: Annotated[float, typer.Option(help="Seconds between reads of the pointers.", min=0.1)] = 1.0,
) -> None:
    """Run the HTTPS gateway for other languages: nginx with TLS and tokens, with canary shares from the pointers."""
    call(
        "reshelve.gateway.gateway:run_gateway",
        listen=listen, servers=server or [], certificate=certificate, key=key, hosts=host or [],
        per_address=per_address, timeout=timeout, every=every,
    )  # fmt: skip


keys_app = typer.Typer(
    help="The keys that sign versions and moves of the pointer: make, show, and sign what is published.",
    no_args_is_help=True,
)
app.add_typer(keys_app, name="keys")


@keys_app.command("make")
def keys_make(
    role: Annotated[
        list[Role] | None,
        typer.Option("--role", help="What the key signs; repeatable. Default: a key for each role."),
    ] = None,
    if_missing: Annotated[
        bool,
        typer.Option(help="Keep existing private keys, and make none for a role that has a trusted key."),
    ] = False,
    name: Annotated[str, typer.Option(help="Whose key it is, for people.")] = "",
    days: Annotated[
        int | None,
        typer.Option(min=1, help="How many days its signatures count; default: until it is revoked."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create key pairs: the private keys (mode 0600) sign here, the public keys are trusted here."""
    show(
        call(
            "reshelve.store.keys:make", roles=role or list(Role), if_missing=if_missing, name=name, days=days
        ),
        as_json,
    )


@keys_app.command("show")
def keys_show(as_json: AsJson = False) -> None:
    """Show which keys sign here, and every trusted key: its role, its name, and until when it counts."""
    show(call("reshelve.store.keys:describe"), as_json)


@keys_app.command("sign")
def keys_sign(
    ranker: RankerName,
    unsigned: Annotated[
        bool, typer.Option(help="Also sign versions that were never signed: trusts the bucket, once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sign published versions with the current key, when keys are rotated."""
    show(call("reshelve.store.keys:sign", ranker, unsigned=unsigned), as_json)
