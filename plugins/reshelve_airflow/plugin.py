"""What Airflow must know by name: the timetable that its database remembers, links of tasks, and the Releases page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from reshelve_airflow.reports import DataDocsLink, ReportLink, ValidationLink
from reshelve_airflow.timetable import NightTimetable

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp

PREFIX = "/reshelve"
Message = MutableMapping[str, Any]


class LazyPages:
    """The pages, imported at their first request: every process of Airflow imports this file, tasks too, and FastAPI
    with Airflow's log-in costs them four seconds."""

    @property
    def app(self) -> FastAPI:
        """The real application."""
        from reshelve_airflow.releases.app import app

        return app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        await self.app(scope, receive, send)


def warmed(app: ASGIApp) -> ASGIApp:
    """`app`; in passing, the pages are made ready (`releases.warm`), imported only where they are."""
    from reshelve_airflow.releases.warm import warmed

    return warmed(app)


class ReshelvePlugin(AirflowPlugin):
    """Registers the timetable, the links to reports, and the pages."""

    name = "reshelve"
    timetables = [NightTimetable]  # noqa: RUF012 - Airflow's own attribute
    operator_extra_links = [ReportLink(), ValidationLink(), DataDocsLink()]  # noqa: RUF012
    fastapi_apps = [{"app": LazyPages(), "url_prefix": PREFIX, "name": "reshelve"}]  # noqa: RUF012
    fastapi_root_middlewares = [{"middleware": warmed, "name": "reshelve pages"}]  # noqa: RUF012
    # Without `url_route`: a frame inside Airflow's page may not leave it, so no link to a run would work. In a menu, since
    # Airflow 3.3 draws such a view in the side bar itself as a button that does nothing.
    external_views = [  # noqa: RUF012
        {
            "name": "Releases",
            "href": f"{PREFIX.removeprefix('/')}/releases",
            "destination": "nav",
            "category": "browse",
        }
    ]
