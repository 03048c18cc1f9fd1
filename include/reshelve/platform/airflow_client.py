"""The few calls of Airflow's REST API that a night needs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from reshelve.errors import ConfigurationError, TryAgainError

ENDED = ("success", "failed")
NIGHT = "night"  # the first task of `retrain_<ranker>`: it begins the night
EXIT_CODE = "exit_code"  # what a failed verb's task hands on


@dataclass(frozen=True)
class DagRun:
    """One run of a DAG."""

    dag: str
    id: str
    state: str
    partition: str | None
    conf: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen in it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Task:
    """One task of a run; a mapped task has one per index."""

    dag: str
    run: str
    id: str
    index: int
    state: str
    attempt: int
    seconds: float

    @property
    def label(self) -> str:
        """`evaluate[1]` for a mapped task."""
        return self.id if self.index < 0 else f"{self.id}[{self.index}]"


class AirflowClient:
    """Airflow's API as one user. Every call raises TryAgainError when Airflow is away or refuses."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._login = {"username": user, "password": password}
        self._token = ""

    def wait_for_dag(self, dag: str, seconds: float = 120) -> None:
        """Wait until the DAG processor has read the DAG. Raises ConfigurationError with the import errors if it cannot."""
        deadline = time.monotonic() + seconds
        while self._call("GET", f"/dags/{dag}", missing=None) is None:
            if time.monotonic() > deadline:
                errors = self._call("GET", "/importErrors")["import_errors"]
                text = "\n".join(f"{e['filename']}\n{e['stack_trace']}" for e in errors)
                raise ConfigurationError(f"there is no DAG {dag}", text or "no file under dags/ makes it")
            time.sleep(1)

    def unpause(self, dag: str) -> None:
        """Let the scheduler run the DAG."""
        self._call("PATCH", f"/dags/{dag}", {"is_paused": False})

    def trigger(self, dag: str, partition: date, **params: Any) -> DagRun:
        """Ask the scheduler for a run of one partition; one that goes on already, and does as much, is taken instead."""
        key = partition.isoformat()
        for run in self.runs(dag):
            same = all(run.conf.get(name) in (None, value) for name, value in params.items())
            if run.partition == key and not run.ended and same:
                return run
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        body = {
            "dag_run_id": f"night__{key}__{now}",
            "logical_date": None,
            "partition_key": key,
            "conf": params,
        }
        return _run(self._call("POST", f"/dags/{dag}/dagRuns", body))

    def runs(self, dag: str, limit: int = 25) -> list[DagRun]:
        """The newest runs, newest first."""
        answer = self._call("GET", f"/dags/{dag}/dagRuns?order_by=-run_after&limit={limit}")
        return [_run(item) for item in answer["dag_runs"]]

    def run(self, run: DagRun) -> DagRun:
        """The run as it is now."""
        return _run(self._call("GET", f"/dags/{run.dag}/dagRuns/{_quoted(run.id)}"))

    def tasks(self, run: DagRun) -> list[Task]:
        """The run's tasks, in the order in which they started; those that have not yet started come last."""
        answer = self._call("GET", f"/dags/{run.dag}/dagRuns/{_quoted(run.id)}/taskInstances?limit=100")
        found = sorted(answer["task_instances"], key=lambda t: t["start_date"] or "9")
        return [_task(item) for item in found]

    def log(self, task: Task, lines: int = 25) -> str:
        """The last lines of a task's log."""
        path = f"/dags/{task.dag}/dagRuns/{_quoted(task.run)}/taskInstances/{task.id}/logs/{task.attempt}"
        answer = self._call(
            "GET", f"{path}?map_index={task.index}&full_content=true", missing={"content": []}
        )
        events = [item if isinstance(item, str) else str(item.get("event", "")) for item in answer["content"]]
        kept = [event for event in events if event and not event.startswith("::")]
        return "\n".join(kept[-lines:])

    def exit_code(self, task: Task) -> int | None:
        """How the verb of a task that failed ended; None where it did not end by itself."""
        path = f"/dags/{task.dag}/dagRuns/{_quoted(task.run)}/taskInstances/{task.id}/xcomEntries/{EXIT_CODE}"
        answer = self._call("GET", f"{path}?map_index={task.index}", missing=None)
        return None if answer is None else int(answer["value"])

    def night_of(self, run: DagRun) -> str | None:
        """The id of the night that a run of `retrain_<ranker>` began; None where it began none."""
        path = f"/dags/{run.dag}/dagRuns/{_quoted(run.id)}/taskInstances/{NIGHT}/xcomEntries/run"
        answer = self._call("GET", path, missing=None)
        return None if answer is None else str(answer["value"]).strip('"')

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, **missing: Any) -> Any:
        """One call; with `missing=…` a 404 answers that value."""
        if not self._token:
            self._token = self._send("POST", "/auth/token", self._login)["access_token"]
        try:
            return self._send(method, f"/api/v2{path}", body)
        except urllib.error.HTTPError as error:
            if error.code == 404 and "missing" in missing:
                return missing["missing"]
            if error.code == 401:
                self._token = ""  # it expires after a day: the next call logs in again
            detail = error.read().decode(errors="replace")[:1000]
            raise TryAgainError(f"Airflow answered {error.code} to {method} {path}", detail) from error

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, OSError) as error:
            raise TryAgainError(f"Airflow does not answer at {self.url}", str(error)) from error


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _run(item: dict[str, Any]) -> DagRun:
    return DagRun(
        dag=item["dag_id"], id=item["dag_run_id"], state=item["state"], partition=item.get("partition_key"), conf=item.get("conf") or {}
    )  # fmt: skip


def _task(item: dict[str, Any]) -> Task:
    seconds = item["duration"] or 0.0
    if item["state"] == "running" and item["start_date"]:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(item["start_date"])).total_seconds()
    return Task(
        dag=item["dag_id"], run=item["dag_run_id"], id=item["task_id"], index=item["map_index"],
        state=item["state"] or "none", attempt=max(item["try_number"], 1), seconds=seconds,
    )  # fmt: skip
