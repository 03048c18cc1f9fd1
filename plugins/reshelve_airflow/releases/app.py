"""The pages under /reshelve: read from the object store, act by starting DAGs. Nothing is decided in this process."""

from __future__ import annotations

import asyncio
import secrets
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, Form, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.errors import ReshelveError, TryAgainError
from reshelve.rollout.roll_back import require_way_back
from reshelve_airflow.releases import airflow_api
from reshelve_airflow.releases.access import (
    Editor,
    RankerName,
    Shown,
    buttons_of,
    dag_of,
    form_token,
    may_see,
    ranker_reader,
    reader,
)
from reshelve_airflow.releases.bound import Bound, StalePageError, require_unmoved, require_version
from reshelve_airflow.releases.bucket import board
from reshelve_airflow.releases.contents import overview, ranker_page
from reshelve_airflow.releases.pages import STYLE, THEME, render
from reshelve_airflow.releases.refusals import (
    RefusedError,
    refuse,
    require_another_person,
    require_no_hold,
    require_releasable,
)

Reason = Annotated[
    str, Form(min_length=3, max_length=500, description="The reason; recorded in the deployment log.")
]
SourceName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Clickstream source.")]
Version = Annotated[int, Form(ge=1, le=99_999_999_999)]

_PATIENCE = 20  # seconds, for a run that is about to ask, or has only just asked
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

# No docs and no schema: those would be open to anyone.
app = FastAPI(
    title="Reshelve", dependencies=[Depends(reader)], docs_url=None, redoc_url=None, openapi_url=None
)


@app.get("/releases", response_class=HTMLResponse)
def releases(request: Request, user: GetUserDep) -> Response:
    """Every ranker that the user may see at one glance."""
    return _page(request, "overview.html", **overview(board(), partial(may_see, user)))


@app.get("/releases/{ranker}", response_class=HTMLResponse, dependencies=[Depends(ranker_reader)])
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
    watch = await airflow_api.is_paused(request, "monitor")
    acts = await run_in_threadpool(buttons_of, user, ranker)
    pointer = shown["deployment"].pointer
    token = form_token(user, ranker, pointer.sequence if pointer else 0) if acts else ""
    own = pointer is not None and not pointer.plan.may_approve(user.get_name())
    return _page(
        request, "ranker.html", **shown, acts=acts, token=token, own=own, started=started, watch_paused=watch
    )


@app.get("/report/{ranker}/{name}", response_class=HTMLResponse, dependencies=[Depends(ranker_reader)])
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
    from reshelve.validation.verdicts import validation_page

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
    shown: Editor,
    seen: Bound,
    ranker: RankerName,
    version: Version,
    reason: Reason,
    allow_older: Annotated[bool, Form()] = False,
    allow_held: Annotated[bool, Form()] = False,
) -> Response:
    """Start `release_<ranker>`, where that would not refuse the version for good. What has to wait, its run waits for:
    a release that is held is remembered by the run, and begun when the hold ends.
    """
    await refuse(
        require_releasable, board().store, seen, version, allow_older=allow_older, allow_held=allow_held
    )
    conf = {
        "version": version,
        "reason": reason,
        "allow_older": allow_older,
        "allow_held": allow_held,
    }
    return await _start(request, shown, seen, dag_of("release", ranker), conf)


@app.post("/releases/{ranker}/approve")
async def approve(
    request: Request, shown: Editor, seen: Bound, ranker: RankerName, version: Version, reason: Reason
) -> Response:
    """Approve a waiting release; refused to who requested it, where it asks for another person."""
    require_version(seen, version)
    if seen.state is not ReleaseState.APPROVAL:
        raise StalePageError(
            ranker, f"version {version} does not wait for a person: it is {seen.state.value}"
        )
    await refuse(require_no_hold, board().store, seen)
    await refuse(require_another_person, board().store, seen, shown.user.get_name())
    return await _decide(request, shown, seen, "Approve", "approve", reason)


@app.post("/releases/{ranker}/hold")
async def hold(
    request: Request, shown: Editor, seen: Bound, ranker: RankerName, version: Version, reason: Reason
) -> Response:
    """Take the release under way back; what is stable serves on."""
    require_version(seen, version)
    return await _decide(request, shown, seen, "Reject", "hold", reason)


@app.post("/releases/{ranker}/rollback")
async def rollback(
    request: Request,
    shown: Editor,
    seen: Bound,
    ranker: RankerName,
    reason: Reason,
    to: Annotated[str, Form(pattern=r"^[1-9][0-9]{0,10}$")],
) -> Response:
    """Start `rollback_<ranker>`, not as a dry run, where that would not refuse the version at once."""
    await refuse(require_way_back, board().store, seen, int(to))
    conf = {"to": int(to), "reason": reason, "dry_run": False}
    return await _start(request, shown, seen, dag_of("rollback", ranker), conf)


async def _decide(
    request: Request, shown: Shown, seen: Pointer, option: str, button: str, reason: str
) -> Response:
    """Answer the run that waits for a person about this very release, where one does; else start the DAG that does the same.

    So it is where Airflow lets the user start that DAG and not answer in the run.
    """
    from starlette.concurrency import run_in_threadpool

    ranker, version = seen.ranker, seen.canary
    assert version is not None
    waiting = f"release_{ranker}"
    # Whoever went past a run between having come to the question and asking it would leave it waiting.
    for _ in range(_PATIENCE):
        # Looked at first: a run that comes to its question between the two looks is then answered, or waited for.
        about_to_ask = seen.state is ReleaseState.APPROVAL and await airflow_api.is_working(
            request, waiting, version
        )
        run, may_answer = await _answer(request, waiting, seen, option, reason)
        if run is not None:
            return _back(request, ranker, waiting, run)
        if not (about_to_ask and may_answer):
            conf = {"version": version, "reason": reason}
            return await _start(request, shown, seen, dag_of(button, ranker), conf)
        await asyncio.sleep(1)
        await run_in_threadpool(require_unmoved, ranker, shown)
    raise HTTPException(
        409, f"{waiting} is not ready for this answer yet; go back and try again in a few seconds"
    )


async def _answer(
    request: Request, waiting: str, seen: Pointer, option: str, reason: str
) -> tuple[str | None, bool]:
    """The run that was answered, or None; whether the user may answer at all."""
    assert seen.canary is not None
    try:
        run = await airflow_api.answer_waiting(request, waiting, seen.canary, seen.sequence, option, reason)
    except HTTPException as error:
        if error.status_code != 403:
            raise
        return None, False
    return run, True


async def _start(request: Request, shown: Shown, seen: Pointer, dag: str, conf: dict[str, Any]) -> Response:
    """Start a DAG, bound to what the page showed. One drawing of a page starts it once for a version, however often it is asked."""
    run = f"page__{seen.ranker}__{conf.get('version') or conf['to']}__{shown.page}"
    bound = {**conf, "if_sequence": shown.sequence}
    await airflow_api.start_dag(request, dag, run, bound, note=conf["reason"])
    return _back(request, seen.ranker, dag, run)


def _back(request: Request, ranker: str, dag: str, run: str) -> Response:
    """To the ranker's page, by GET, so that a reload does not ask again."""
    there = f"{request.scope.get('root_path', '')}/releases/{ranker}?{urlencode({'dag': dag, 'run': run})}"
    return RedirectResponse(there, status_code=303)


def _page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A page that may load nothing, run nothing but its few lines for the theme, and be framed by nobody else."""
    nonce = secrets.token_urlsafe(16)
    root = request.scope.get("root_path", "")
    html = render(
        template, style=STYLE, theme=THEME, nonce=nonce, root=root, airflow=root.rpartition("/")[0], **context
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )
    return HTMLResponse(html, status_code=status, headers={**_HEADERS, "Content-Security-Policy": policy})


_TITLES = {
    401: "Log in first",
    403: "You may look but not act",
    404: "There is no such page",
    409: "Not now",
    422: "The request is invalid",
    500: "Stored data is damaged",
    503: "The object store does not answer",
}


@app.exception_handler(StalePageError)
def _stale(request: Request, error: StalePageError) -> Response:
    words = (
        f"The pointer has moved since the page was loaded: {error.detail}. Nothing was started: "
        "reload the page and decide again."
    )
    back = f"{request.scope.get('root_path', '')}/releases/{error.ranker}"
    return _message(request, error.status_code, words, title="This page is out of date", back=back)


@app.exception_handler(RefusedError)
def _not_started(request: Request, error: RefusedError) -> Response:
    back = f"{request.scope.get('root_path', '')}/releases/{error.ranker}"
    return _message(request, error.status_code, str(error.detail), title="This cannot be done", back=back)


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


def _message(request: Request, status: int, words: str, title: str = "", back: str = "") -> Response:
    title = title or _TITLES.get(status, "That did not work")
    return _page(request, "message.html", status=status, title=title, words=words, code=status, back=back)
