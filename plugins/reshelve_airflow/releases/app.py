"""The pages under /reshelve: read from the object store, act by starting DAGs. Nothing is decided in this process."""

from __future__ import annotations

import asyncio
import secrets
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, Form, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from reshelve.errors import ReshelveError, TryAgainError
from reshelve.serving.board import Board
from reshelve.store.deployments import read_pointer
from reshelve.store.rollout import State
from reshelve_airflow.releases import airflow_api
from reshelve_airflow.releases.access import Editor, RankerName, form_token, may_act, reader
from reshelve_airflow.releases.contents import overview, ranker_page
from reshelve_airflow.releases.pages import STYLE, render

Reason = Annotated[str, Form(min_length=3, max_length=500, description="Why, for the deployment log.")]
SourceName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Clickstream source.")]
Version = Annotated[int, Form(ge=1, le=99_999_999_999)]

_PATIENCE = 10  # seconds, for a run that is about to ask
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

# No docs and no schema: those would be open to anyone.
app = FastAPI(
    title="Reshelve", dependencies=[Depends(reader)], docs_url=None, redoc_url=None, openapi_url=None
)


@lru_cache(maxsize=1)
def board() -> Board:
    """This process's reader, with its memory; it gives up after seconds where the object store is away."""
    from reshelve.store.objects import impatient_store

    return Board(impatient_store())


@app.get("/releases", response_class=HTMLResponse)
def releases(request: Request) -> Response:
    """Every ranker at one glance."""
    return _page(request, "overview.html", **overview(board()))


@app.get("/releases/{ranker}", response_class=HTMLResponse)
async def release_of(
    request: Request,
    user: GetUserDep,
    ranker: RankerName,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    newest: Annotated[int | None, Query(ge=1, le=99_999_999)] = None,
    dag: Annotated[str | None, Query(pattern=r"^[a-z_0-9]{1,80}$")] = None,
    run: Annotated[str | None, Query(max_length=250)] = None,
) -> Response:
    """One ranker: versions, agents, decisions, log, and what may be done."""
    from starlette.concurrency import run_in_threadpool

    shown = await run_in_threadpool(ranker_page, board(), ranker, page, newest)
    started = None
    if dag and run:
        started = {"dag": dag, "run": run, "state": await airflow_api.run_state(request, dag, run)}
    acts = may_act(user, ranker)
    token = form_token(user, ranker) if acts else ""
    return _page(request, "ranker.html", **shown, acts=acts, token=token, started=started)


@app.get("/report/{ranker}/{name}", response_class=HTMLResponse)
def report(
    ranker: RankerName,
    name: Annotated[str, Path(pattern=r"^[0-9a-f-]{11,40}$", description="Version or run.")],
) -> Response:
    """A night's report as it was made."""
    from reshelve.reporting.address import read_report

    return _made_page(read_report(board().store, ranker, name), f"report of {ranker} {name}")


@app.get("/validation/{source}/{day}/{name}", response_class=HTMLResponse)
def validation(source: SourceName, day: date, name: Literal["report.html", "data_docs.html"]) -> Response:
    """What the verdict on a day says, as it was made: on one page, or by Great Expectations' own words."""
    from reshelve.clickstream.verdicts import validation_page

    return _made_page(validation_page(board().store, source, day, name), f"{name} of {source} {day}")


def _made_page(found: bytes | None, what: str) -> Response:
    """A page from the object store. It is data: it gets no session, and may load nothing."""
    if found is None:
        raise HTTPException(404, f"there is no {what}")
    policy = (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; base-uri 'none'; frame-ancestors 'self'"
    )
    return HTMLResponse(found, headers={**_HEADERS, "Content-Security-Policy": policy})


@app.post("/releases/{ranker}/release")
async def release(
    request: Request,
    user: Editor,
    ranker: RankerName,
    version: Version,
    reason: Reason,
    allow_older: Annotated[bool, Form()] = False,
    allow_held: Annotated[bool, Form()] = False,
) -> Response:
    """Start `release_<ranker>`."""
    conf = {
        "version": version,
        "reason": reason,
        "allow_older": allow_older,
        "allow_held": allow_held,
    }
    return await _start(request, ranker, f"release_{ranker}", conf)


@app.post("/releases/{ranker}/approve")
async def approve(
    request: Request, user: Editor, ranker: RankerName, version: Version, reason: Reason
) -> Response:
    """Let a release that waits for a person go on."""
    return await _decide(request, ranker, version, "Approve", "approve", reason)


@app.post("/releases/{ranker}/hold")
async def hold(
    request: Request, user: Editor, ranker: RankerName, version: Version, reason: Reason
) -> Response:
    """Take the release under way back; what is stable serves on."""
    return await _decide(request, ranker, version, "Reject", "withdraw", reason)


@app.post("/releases/{ranker}/rollback")
async def rollback(
    request: Request,
    user: Editor,
    ranker: RankerName,
    reason: Reason,
    to: Annotated[str, Form(pattern=r"^[1-9][0-9]{0,10}$")],
) -> Response:
    """Start `rollback`, not as a dry run."""
    conf = {"ranker": ranker, "to": int(to), "reason": reason, "dry_run": False}
    return await _start(request, ranker, "rollback", conf)


async def _decide(
    request: Request, ranker: str, version: int, option: str, dag: str, reason: str
) -> Response:
    """Answer the run that waits for a person, where one does; else start the DAG that does the same."""
    waiting = f"release_{ranker}"
    for _ in range(_PATIENCE):
        run = await airflow_api.answer_waiting(request, waiting, option, reason)
        if run is not None:
            return _back(request, ranker, waiting, run)
        if not await _is_about_to_ask(request, ranker):
            conf = {"ranker": ranker, "version": version, "reason": reason}
            return await _start(request, ranker, dag, conf)
        await asyncio.sleep(1)
    raise HTTPException(
        409, f"{waiting} is about to ask for this answer; go back and try again in a few seconds"
    )


async def _is_about_to_ask(request: Request, ranker: str) -> bool:
    """Whether a run is between having come to the question and asking it: whoever went past it would leave it waiting."""
    from starlette.concurrency import run_in_threadpool

    pointer = await run_in_threadpool(read_pointer, board().store, ranker)
    if pointer is None or pointer.state is not State.APPROVAL:
        return False
    return await airflow_api.under_way(request, f"release_{ranker}") is not None


async def _start(request: Request, ranker: str, dag: str, conf: dict[str, Any]) -> Response:
    run = await airflow_api.start_dag(request, dag, conf, note=conf["reason"])
    return _back(request, ranker, dag, run)


def _back(request: Request, ranker: str, dag: str, run: str) -> Response:
    """To the ranker's page, by GET, so that a reload does not ask again."""
    there = f"{request.scope.get('root_path', '')}/releases/{ranker}?{urlencode({'dag': dag, 'run': run})}"
    return RedirectResponse(there, status_code=303)


def _page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A page that may load nothing, run nothing, and be framed by nobody else."""
    nonce = secrets.token_urlsafe(16)
    root = request.scope.get("root_path", "")
    html = render(template, style=STYLE, nonce=nonce, root=root, airflow=root.rpartition("/")[0], **context)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'"
    )
    return HTMLResponse(html, status_code=status, headers={**_HEADERS, "Content-Security-Policy": policy})


_TITLES = {
    401: "Log in first",
    403: "You may look, not act",
    404: "There is no such page",
    422: "That was not understood",
    500: "Something that is stored is damaged",
    503: "The object store does not answer",
}


@app.exception_handler(AnyHTTPException)
def _refused(request: Request, error: HTTPException) -> Response:
    return _message(request, error.status_code, str(error.detail))


@app.exception_handler(RequestValidationError)
def _invalid(request: Request, error: RequestValidationError) -> Response:
    said = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    return _message(request, 422, said)


@app.exception_handler(ReshelveError)
def _away(request: Request, error: ReshelveError) -> Response:
    return _message(request, 503 if isinstance(error, TryAgainError) else 500, error.headline)


def _message(request: Request, status: int, words: str) -> Response:
    title = _TITLES.get(status, "That did not work")
    return _page(request, "message.html", status=status, title=title, words=words, code=status)
