"""Airflow's public REST API, called inside this process with the credentials of the request that is answered.

So Airflow checks the same permissions once more, writes its audit log, and knows whose run it is.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import HTTPException, Request, status

_CREDENTIALS = ("authorization", "cookie")
_SECONDS = 30.0
# Airflow 3.3.2 fails a task that is answered before its scheduler has heard that the asking process ended. Its retry asks
# anew, and the answer is lost. The scheduler hears within a turn of its loop, a second or two on a busy machine.
_HEARD = timedelta(seconds=5)


async def start_dag(request: Request, dag: str, run: str, conf: dict[str, Any], note: str) -> None:
    """Ask for the run of a DAG with this id; one that already exists is the first click's.

    Raises HTTPException with Airflow's own words where it is refused.
    """
    body = {"dag_run_id": run, "logical_date": None, "conf": conf, "note": note}
    try:
        await _call(request, "POST", f"/dags/{quote(dag)}/dagRuns", json=body)
    except HTTPException as error:
        if error.status_code != status.HTTP_409_CONFLICT:
            raise
        await run_state(request, dag, run)


async def run_state(request: Request, dag: str, run: str) -> str:
    """The state of a run."""
    answer = await _call(request, "GET", _run(dag, run))
    return str(answer["state"])


async def is_paused(request: Request, dag: str) -> bool | None:
    """Whether a DAG is switched off; None where whoever asks may not know, or there is none."""
    try:
        return bool((await _call(request, "GET", f"/dags/{quote(dag)}"))["is_paused"])
    except HTTPException:
        return None


async def answer_waiting(
    request: Request, dag: str, version: int, sequence: int, option: str, reason: str
) -> str | None:
    """Answer the task of `dag` that asks a person about this version, as the pointer's move `sequence` left it.

    The id of its run, or None where none waits: a run that asks about anything else is left alone.
    """
    for task in await _asking(request, dag):
        run = str(task["dag_run_id"])
        there = _run(dag, run)
        if await _version(request, there) != version or await _left_at(request, there) != sequence:
            continue
        path = f"{there}/taskInstances/{quote(task['task_id'])}/{task['map_index']}/hitlDetails"
        body = {"chosen_options": [option], "params_input": {"why": reason}}
        await _call(request, "PATCH", path, json=body)
        return run
    return None


async def is_working(request: Request, dag: str, version: int) -> bool:
    """Whether a run of `dag` works on this version: it runs, and does not wait for anybody's answer."""
    asking = {str(task["dag_run_id"]) for task in await _asking(request, dag)}
    found = await _call(request, "GET", f"/dags/{quote(dag)}/dagRuns?state=running&limit=50")
    return any(
        (run["conf"] or {}).get("version") == version and str(run["dag_run_id"]) not in asking
        for run in found["dag_runs"]
    )


async def _asking(request: Request, dag: str) -> list[dict[str, Any]]:
    """The tasks of `dag` that wait for a person, long enough to be answered."""
    waiting = "hitlDetails?response_received=false&state=awaiting_input"
    found = await _call(request, "GET", f"/dags/{quote(dag)}/dagRuns/~/{waiting}")
    heard = datetime.now(UTC) - _HEARD
    return [
        detail["task_instance"]
        for detail in found["hitl_details"]
        if datetime.fromisoformat(detail["created_at"]) <= heard
    ]


async def _version(request: Request, there: str) -> Any:
    """The version that a run was started for."""
    return ((await _call(request, "GET", there))["conf"] or {}).get("version")


async def _left_at(request: Request, there: str) -> Any:
    """The move of the pointer at which a run's release came to wait."""
    left = (await _call(request, "GET", f"{there}/taskInstances/release/xcomEntries/return_value"))["value"]
    return (json.loads(left) if isinstance(left, str) else left).get("sequence")


def _run(dag: str, run: str) -> str:
    return f"/dags/{quote(dag)}/dagRuns/{quote(run, safe='')}"


async def _call(request: Request, method: str, path: str, **body: Any) -> Any:
    from airflow.api_fastapi.main import app  # the application of this very server, imported long ago

    headers = {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url=str(request.base_url.replace(path="/")), timeout=_SECONDS
    ) as client:
        answer = await client.request(method, f"/api/v2{path}", headers=headers, **body)
    if answer.is_success:
        return answer.json()
    raise HTTPException(answer.status_code, _words(answer))


def _words(answer: httpx.Response) -> str:
    """Airflow's refusal in one line."""
    if answer.status_code >= status.HTTP_500_INTERNAL_SERVER_ERROR:
        return "Airflow could not do that; its log says why"
    try:
        detail = answer.json().get("detail")
    except ValueError:
        detail = answer.text
    return f"Airflow refused: {detail}"
