"""Airflow's real processes for tests, with PostgreSQL and an object store beside them, all on free ports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from reshelve.clickstream.events import EVENT_SCHEMA, landed_prefix
from reshelve.platform import airflow, postgres, seaweedfs
from reshelve.platform.configuration import Machine, Ports
from reshelve.processes import free_port, start, stop_group
from reshelve.settings import PROJECT, settings
from reshelve.store.keys import make
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

CAREFUL = "careful"
DAILY = "daily"


class AirflowHere:
    """Airflow's processes of this test session, its REST API, its command, and the bucket beside them."""

    def __init__(self, machine: Machine, environment: dict[str, str], store: ObjectStore) -> None:
        self.machine = machine
        self.environment = environment
        self.store = store
        self.pids: dict[str, int] = {}
        self._token = ""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if not self._token:
            login = {"username": "admin", "password": self.machine.secrets.passwords["admin"]}
            self._token = self._send("POST", "/auth/token", login)["access_token"]
        return self._send(method, f"/api/v2{path}", body)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag}/dagRuns?order_by=partition_date&limit=50")["dag_runs"])

    def tasks(self, run: dict[str, Any]) -> dict[str, str]:
        path = f"/dags/{run['dag_id']}/dagRuns/{urllib.parse.quote(run['dag_run_id'], safe='')}/taskInstances"
        return {task["task_id"]: task["state"] for task in self.call("GET", path)["task_instances"]}

    def trigger(self, dag: str, **body: Any) -> dict[str, Any]:
        return dict(self.call("POST", f"/dags/{dag}/dagRuns", {"logical_date": None, **body}))

    def ended(self, dag: str, count: int) -> list[dict[str, Any]]:
        """The runs of a DAG, once `count` of them have ended."""
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            runs = self.runs(dag)
            if len([run for run in runs if run["state"] in ("success", "failed")]) >= count:
                return runs
            time.sleep(1)
        raise AssertionError(f"{dag}: {self.runs(dag)}")

    def log(self, process: str) -> str:
        """What one of Airflow's processes has logged."""
        return (self.machine.logs / process).read_text(errors="replace")

    def value(self, run: dict[str, Any], task: str, key: str) -> Any:
        """What a task handed on."""
        path = f"/dags/{run['dag_id']}/dagRuns/{urllib.parse.quote(run['dag_run_id'], safe='')}"
        found = self.call("GET", f"{path}/taskInstances/{task}/xcomEntries/{key}?deserialize=true")["value"]
        return json.loads(found) if isinstance(found, str) else found

    def backfill(self, dag: str, first: str, last: str, *more: str, refused: str = "", **conf: Any) -> None:
        """Start one, its runs with the params `conf`; with `refused` it must not start, and say so."""
        command = [
            "backfill",
            "create",
            "--dag-id",
            dag,
            "--from-date",
            first,
            "--to-date",
            last,
            "--max-active-runs",
            "1",
            "--dag-run-conf",
            json.dumps(conf),
            *more,
        ]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if refused:
            assert done.returncode != 0 and refused in done.stdout + done.stderr, done.stderr
        else:
            assert done.returncode == 0, done.stderr

    def judge(self, day: str, decision: PartitionDecision) -> None:
        """A landed day of `retail` with its verdict."""
        partition = date.fromisoformat(day)
        self.store.put(landed_prefix("retail", partition) + "part-0.parquet", b"")
        verdict = PartitionVerdict(
            verdict=decision, headline=f"retail {day}: {decision}", source="retail", partition=partition
        )
        self.store.put_json(verdict_key("retail", partition), verdict.result())

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.machine.airflow_url + path, data=data, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"null")  # a DELETE answers nothing


def running(
    home: Path,
    processes: Iterable[str] = tuple(airflow.PROCESSES),
    more: Mapping[str, str] | None = None,
    before: Callable[[AirflowHere], None] = lambda platform: None,
) -> Iterator[AirflowHere]:
    """PostgreSQL, SeaweedFS and Airflow's processes on free ports; the schedule's first partition is far ahead.

    `more`: further variables of Airflow's processes; `before`: what is done with the migrated database before they start.
    """
    here = Machine(home, Ports(**{name: free_port() for name in Ports.model_fields}))
    environment = {
        **here.environment(),
        "RESHELVE_START_DATE": "2199-01-01",
        "PYTHONPATH": os.pathsep.join(
            [str(PROJECT / "include"), str(PROJECT / "plugins")]
        ),  # of this checkout
        "RESHELVE_BUCKET": "reshelve",
        "RESHELVE_RANKERS_DIR": str(with_a_careful_one(home / "rankers")),
        "RESHELVE_CLICKSTREAMS_DIR": str(
            with_a_daily_one(home / "clickstreams", home.with_name(f"{home.name}-raw"))
        ),
        **(more or {}),
    }
    ports, secrets = here.ports, here.secrets
    started = []
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(key, environment[key])
        try:
            started.append(
                postgres.start_postgres(
                    here.postgres, ports.postgres_port, secrets.postgres_password, here.logs / "pg"
                )
            )
            started.append(seaweedfs.start_seaweedfs(here.store, ports.s3_port, here.logs / "s3"))
            store = ObjectStore("reshelve")
            store.create_bucket()
            postgres.create_database(ports.postgres_port, secrets.postgres_password)
            with pytest.MonkeyPatch.context() as home:
                home.setenv("RESHELVE_HOME", environment["RESHELVE_HOME"])
                settings.cache_clear()
                make(if_missing=True)
            settings.cache_clear()
            airflow.prepare(here, environment)
            airflow.apply_settings(here, environment)
            platform = AirflowHere(here, environment, store)
            before(platform)
            for name in processes:
                started.append(
                    start(airflow.process_command(name), here.logs / name, env=environment, cwd=Path.cwd())
                )
                platform.pids[name] = started[-1].pid
            wait_for_dags(platform)
            yield platform
        finally:
            for process in reversed(started):
                stop_group(process.pid)


def with_a_careful_one(rankers: Path) -> Path:
    """The project's ranker files, and `careful`, whose releases wait for a person."""
    shutil.copytree(settings().rankers_dir, rankers)
    document = yaml.safe_load((rankers / "recommend.yaml").read_text())
    careful = {**document, "name": CAREFUL, "release": {"approval": True}}
    (rankers / f"{CAREFUL}.yaml").write_text(yaml.safe_dump(careful))
    return rankers


def with_a_daily_one(clickstreams: Path, raw: Path) -> Path:
    """The project's mapping files, and `daily`, whose files lie in `raw` by their day: delivered for two days of May."""
    shutil.copytree(settings().clickstreams_dir, clickstreams)
    columns = dict.fromkeys(EVENT_SCHEMA.names, "NULL")
    columns |= {
        "event_id": "md5(CAST(source AS VARCHAR))", "event_time": "seen", "event_type": "'click'",
        "session_id": "visit", "item_id": "sku", "item_title": "concat('TEAPOT ', sku)",
    }  # fmt: skip
    mapping = {
        "name": DAILY,
        "files": f"{raw}/clicks-{{date}}.csv",
        "format": "csv",
        "event_date": "CAST(seen AS DATE)",
        "columns": columns,
    }
    (clickstreams / f"{DAILY}.yaml").write_text(yaml.safe_dump(mapping))
    raw.mkdir()
    for day in ("2011-05-01", "2011-05-02"):
        rows = [f"{day} 09:{n:02}:00,v{n // 3},i{n % 7}" for n in range(40)]
        late = ["2011-05-01 23:59:59,v99,i1"] if day > "2011-05-01" else []
        (raw / f"clicks-{day}.csv").write_text("\n".join(["seen,visit,sku", *rows, *late]) + "\n")
    return clickstreams


def wait_for_dags(platform: AirflowHere) -> None:
    """Wait until the API answers and knows the DAGs; then let them run."""
    wanted = {"clickstream", "retrain_recommend", f"release_{CAREFUL}"}
    expected = {*wanted, "monitor"}
    deadline = time.monotonic() + 180
    while True:
        try:
            if expected <= {dag["dag_id"] for dag in platform.call("GET", "/dags")["dags"]}:
                break
        except OSError:  # not listening yet
            assert time.monotonic() < deadline, "Airflow's API did not answer"
        assert time.monotonic() < deadline, platform.call("GET", "/importErrors")
        time.sleep(1)
    for dag in wanted:
        platform.call("PATCH", f"/dags/{dag}", {"is_paused": False})
    # Its look every ten minutes would hold the releases of a test whose data another test had stopped.
    platform.call("PATCH", "/dags/monitor", {"is_paused": True})
