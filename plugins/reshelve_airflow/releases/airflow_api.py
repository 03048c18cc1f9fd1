"""Airflow's public REST API, called inside this process with the credentials of the request that is answered.

So Airflow checks the same permissions once more, writes its audit log, and knows whose run it is.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from fastapi import HTTPException, Request, status

_CREDENTIALS = ("authorization", "cookie")
_SECONDS = 30.0


async def start_dag(request: Request, dag: str, conf: dict[str, Any], note: str) -> str:
    """Ask for a run of a DAG; its id. Raises HTTPException with Airflow's own words where it is refused."""
    body = {"logical_date": None, "conf": conf, "note": note}
    answer = await _call(request, "POST", f"/dags/{quote(dag)}/dagRuns", json=body)
    return str(answer["dag_run_id"])


async def run_state(request: Request, dag: str, run: str) -> str:
    """The state of a run."""
    answer = await _call(request, "GET", f"/dags/{quote(dag)}/dagRuns/{quote(run, safe='')}")
    return str(answer["state"])


async def answer_waiting(request: Request, dag: str, option: str, reason: str) -> str | None:
    """Answer the task of `dag` that waits for a person; the id of its run, or None where none waits."""
    found = await _call(
        request,
        "GET",
        f"/dags/{quote(dag)}/dagRuns/~/hitlDetails?response_received=false&state=awaiting_input",
    )
    for detail in found["hitl_details"]:
        task = detail["task_instance"]
        run = str(task["dag_run_id"])
        path = f"/dags/{quote(dag)}/dagRuns/{quote(run, safe='')}/taskInstances/{quote(task['task_id'])}"
        body = {"chosen_options": [option], "params_input": {"why": reason}}
        await _call(request, "PATCH", f"{path}/{task['map_index']}/hitlDetails", json=body)
        return run
    return None


async def under_way(request: Request, dag: str) -> str | None:
    """The id of a run of `dag` that runs, or None."""
    found = await _call(request, "GET", f"/dags/{quote(dag)}/dagRuns?state=running&limit=1")
    return str(found["dag_runs"][0]["dag_run_id"]) if found["dag_runs"] else None


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
