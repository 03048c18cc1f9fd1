"""Who may look and who may act. Airflow's log-in and roles decide; a post also proves that it comes from our own page."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, Form, HTTPException, Path, Request, status
from itsdangerous import BadSignature, URLSafeTimedSerializer

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod

NAME = r"^[a-z][a-z0-9_]{0,63}$"
RankerName = Annotated[str, Path(pattern=NAME, description="A ranker.")]

_FORM_SECONDS = 12 * 3600

reader = requires_access_view(AccessView.WEBSITE)
"""Whoever is logged in and may see Airflow's pages; 401 for nobody."""


DAGS = {"release": "release", "approve": "approve", "hold": "withdraw", "rollback": "rollback"}
"""A button (the last part of its path) → the DAG that it starts, whose id goes on with the ranker's name."""


def dag_of(button: str, ranker: str) -> str:
    """The DAG that a button starts: whoever may start that one may press it."""
    return f"{DAGS[button]}_{ranker}"


def may_see(user: BaseUser, ranker: str) -> bool:
    """Whether the user may read the ranker's release DAG. An auth manager may ask a server of its own: not in the event loop."""
    return _may("GET", user, f"release_{ranker}")


def may_start(user: BaseUser, dag: str) -> bool:
    """Whether the user may start the DAG, and is somebody: what is done is done in a person's name."""
    return bool(user.get_id()) and _may("POST", user, dag, DagAccessEntity.RUN)


def buttons_of(user: BaseUser, ranker: str) -> frozenset[str]:
    """The buttons that the user may press. Not in the event loop, either."""
    return frozenset(button for button in DAGS if may_start(user, dag_of(button, ranker)))


def _may(method: ResourceMethod, user: BaseUser, dag: str, entity: DagAccessEntity | None = None) -> bool:
    team = DagModel.get_team_name(dag) if conf.getboolean("core", "multi_team") else None
    details = DagDetails(id=dag, team_name=team)
    return get_auth_manager().is_authorized_dag(
        method=method, access_entity=entity, details=details, user=user
    )


def ranker_reader(user: GetUserDep, ranker: RankerName) -> None:
    """Whoever may see this ranker: a log-in may open some DAGs to some people. Raises HTTPException 403."""
    if not may_see(user, ranker):
        raise HTTPException(status.HTTP_403_FORBIDDEN, f"you may not read the DAG release_{ranker}")


@dataclass(frozen=True)
class Shown:
    """What the page showed to whoever presses its buttons, by the word of its signed token."""

    user: BaseUser
    sequence: int  # the newest move of the pointer
    page: str  # names this one drawing of the page


def form_token(user: BaseUser, ranker: str, sequence: int) -> str:
    """What the forms of one drawing of this user's page carry; `sequence` is the newest move that it shows."""
    return _serializer(ranker).dumps([user.get_id(), sequence, secrets.token_hex(6)])


def editor(
    request: Request,
    user: GetUserDep,
    ranker: RankerName,
    token: Annotated[str, Form(max_length=1000, description="From the page that has the form.")] = "",
) -> Shown:
    """What the user was shown, where they may start the DAG of this button and the post comes from a form of ours.

    The session is a cookie, which a browser also sends with another site's form: the token in the form is signed for
    this user and ranker, and the browser's own word about where the post comes from must not be another site.
    """
    dag = dag_of(request.scope["route"].path.rpartition("/")[2], ranker)
    if not may_start(user, dag):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, f"you may not start the DAG {dag}, or are not logged in"
        )
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise _not_ours("this request comes from another site")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise _not_ours("this request comes from another site")
    try:
        whose, sequence, page = _serializer(ranker).loads(token, max_age=_FORM_SECONDS)
    except (BadSignature, TypeError, ValueError) as error:  # the latter: signed by an earlier release of ours
        raise _not_ours("the form is too old or invalid; reload the page") from error
    if whose != user.get_id():
        raise _not_ours("the form belongs to another user; reload the page")
    return Shown(user, int(sequence), str(page))


def _not_ours(why: str) -> HTTPException:
    return HTTPException(status.HTTP_403_FORBIDDEN, why)


def _serializer(ranker: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get("api", "secret_key"), salt=f"reshelve-releases:{ranker}")


Editor = Annotated[Shown, Depends(editor)]
