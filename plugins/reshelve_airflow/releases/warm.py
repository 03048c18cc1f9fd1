"""What the first page of a process would have to wait for, done before Airflow's API server answers at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)


def warmed(app: ASGIApp) -> ASGIApp:
    """`app` itself, once the pages are imported and compiled and the overview was drawn.

    Airflow takes this for a middleware of its server, and makes those once in each server process before its first request: no
    task and no other process goes through here, and no request does. Where the object store is away, or
    anything else is wrong with the pages, the server starts all the same, and whoever opens one is told.
    """
    try:
        from reshelve_airflow.releases.app import board
        from reshelve_airflow.releases.contents import overview
        from reshelve_airflow.releases.pages import compile_templates

        compile_templates()
        overview(board())
    except Exception as error:  # noqa: BLE001  whatever is wrong with our pages, Airflow has to start
        log.warning("the Releases page could not be prepared yet: %s: %s", type(error).__name__, error)
    return app
