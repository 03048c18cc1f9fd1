"""The `reshelve` command: one verb per stage of the night, and a few for people.

Logs go to stderr; with `--json` stdout carries exactly one JSON object, the result. Exit codes: 0 done,
75 try again, 65 the data is bad, 73 part of the data is bad and the rest is done, 78 the configuration is bad.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from reshelve import errors
from reshelve.files import keep_from_others
from reshelve.logs import configure_logs, logger
from reshelve.pipeline.pinned_code import OtherCodeError
from reshelve.platform.configuration import use_local_platform
from reshelve.platform.variables import unknown_variables
from reshelve.processes import die_with_parent
from reshelve.settings import settings
from reshelve.verbs import clickstream, new, night, platform, servers, tokens, versions, watch

app = typer.Typer(
    name="reshelve",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verbs in (clickstream, new, night, versions, watch, servers, tokens, platform):
    app.add_typer(verbs.app)


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"reshelve {version('reshelve')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Retrain an online shop's ranking models every night, and roll them out safely."""


def main() -> None:
    """Run the command; turn our errors into a headline on stderr and their exit code."""
    configure_logs()
    die_with_parent()
    for sentence in unknown_variables():
        logger().warning(sentence)
    try:
        keep_from_others(settings().home)
        if sys.argv[1:2] != ["model-server"]:  # it asks no store, and runs graphs: it is to hold no secret
            use_local_platform()
        sys.exit(app(standalone_mode=False) or errors.EXIT_DONE)  # click answers the code of a typer.Exit
    except OtherCodeError as other:
        other.run_again()
    except errors.ReshelveError as error:
        _end_with(error)
    except typer.Abort:
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        if refused := errors.of_the_disk(error):
            _end_with(refused)
        show_usage = getattr(error, "show", None)  # click's own usage errors
        if show_usage is None:
            raise
        show_usage()
        sys.exit(errors.EXIT_CONFIGURATION)


def _end_with(error: errors.ReshelveError) -> NoReturn:
    sys.stderr.write(f"reshelve: {error.headline}\n")
    if error.detail:
        sys.stderr.write(f"{error.detail}\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
