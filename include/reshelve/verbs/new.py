"""Verbs that write a first file: a source from its raw files, a ranker from a source."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reshelve.errors import DataError, ReshelveError
from reshelve.logs import logger
from reshelve.verbs.options import AsJson, Source, call, show

new_app = typer.Typer(
    help="Draft a mapping file or ranker file by inspecting the data.", no_args_is_help=True
)
app = typer.Typer()
app.add_typer(new_app, name="new")

Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


@new_app.command("source")
def new_source(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and _.")],
    files: Annotated[
        str,
        typer.Option(
            "--files", "-f", help="The raw files: a path or glob, absolute or relative to the project."
        ),
    ],
    catalogue: Annotated[
        str | None, typer.Option(help="The files of the product list, if the events have no titles.")
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="csv, json or parquet; default: from the file names.")
    ] = None,
    force: Force = False,
    check: Annotated[bool, typer.Option(help="Map and validate the first day without landing it.")] = True,
    as_json: AsJson = False,
) -> None:
    """Inspect raw files and write include/clickstreams/NAME.yaml, with a comment on every guess; then try it on the first day.

    If the try fails, the file is kept: fix it, then run `reshelve land --source NAME --dry-run`."""
    result = call("reshelve.landing.new_source:new_source", name, files, catalogue, file_format, force)
    _show_tried(result, check, "reshelve.landing.trial:try_day", name, as_json)


@new_app.command("ranker")
def new_ranker(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and _.")],
    source: Source,
    kind: Annotated[
        str | None,
        typer.Option(help="search, next_item or pair; default: what the source's events allow."),
    ] = None,
    force: Force = False,
    check: Annotated[bool, typer.Option(help="Check the file as a night would.")] = True,
    as_json: AsJson = False,
) -> None:
    """Inspect a source's events and write include/rankers/NAME.yaml, with a comment on every choice."""
    result = call("reshelve.examples.new_ranker:new_ranker", name, source, kind, force)
    _show_tried(result, check, "reshelve.pipeline.references:load_ranker", name, as_json)


def _show_tried(result: dict[str, Any], check: bool, path: str, name: str, as_json: bool) -> None:
    """Show what was written, and how its try went; a try that fails ends as it would have ended a night."""
    failed: ReshelveError | None = None
    if check:
        try:
            tried = call(path, name)
            result = {**result, "check": tried if isinstance(tried, dict) else "the file is right"}
            if isinstance(tried, dict) and tried["verdict"] == "stop":
                failed = DataError(str(tried["headline"]))
        except ReshelveError as error:
            failed = error
            result = {**result, "check": error.headline}
            logger(stage="new").error("the try failed; fix the file, which was kept", file=result["file"])
    check_result = result.get("check")
    if as_json or not isinstance(check_result, dict):
        show(result, as_json)
    else:
        show({key: value for key, value in result.items() if key != "check"}, as_json)
        show(check_result, as_json)
    if failed:
        raise failed
