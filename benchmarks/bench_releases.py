"""The Releases page with many versions and a long log, asked over HTTP of Airflow's own server behind its log-in.

    python benchmarks/bench_releases.py [--versions 1000] [--entries 100000] [--rounds 30]

Fills a SeaweedFS of its own (parallel writers), starts Airflow's API server on SQLite, logs in as a viewer, and asks for
the overview, the ranker's page, an old page of its log and an old page of its versions. `first` is the very first request
of a page in a process that remembers nothing of it; `of a process` is the first page of all, which also imports. Prints milliseconds and one JSON line; the limit is 300.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from reshelve.deployments.deployment_log import Entry, Pointer
from reshelve.deployments.signed_entries import StoredEntry, sign_move
from reshelve.monitoring import observations
from reshelve.monitoring.observations import Observation, VersionRole, VersionTraffic
from reshelve.platform import airflow, seaweedfs
from reshelve.platform.configuration import Machine, Ports
from reshelve.processes import end_with, free_port, port_is_open, start, stop_children, wait_until
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.settings import settings
from reshelve.store import keys, roles
from reshelve.store.manifest import version_number
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest

RANKER = "recommend"
LIMIT_MS = 300
PROCESSES, THREADS = 2, 8
SHARD = 5000
STORY = datetime(2026, 1, 1, tzinfo=UTC)


def numbers(count: int) -> list[int]:
    """Version numbers of `count` days."""
    return [version_number(date(2011, 1, 1) + timedelta(days=day), 1) for day in range(count)]


def pointer(sequence: int, versions: list[int]) -> Pointer:
    """The state after a move: a rollback between the two newest versions, back and forth."""
    stable, previous = versions[-1 - sequence % 2], versions[-2 + sequence % 2]
    return Pointer(
        ranker=RANKER, sequence=sequence, stable=stable, previous=previous, served=(*versions[-50:-2], previous, stable),
        by="anna", reason=f"move {sequence} of a long story", moved_at=STORY + timedelta(seconds=sequence),
    )  # fmt: skip


def entry(sequence: int, versions: list[int], before: str) -> StoredEntry:
    """A move, signed, which stands on the one before it; the first vouches for how the story begins."""
    state = pointer(sequence, versions)
    action = "vouch" if sequence == 1 else "rollback"
    return sign_move(
        Entry(sequence=sequence, action=action, pointer=state, before=before), roles.Role.RELEASE
    )


class Writer:
    """Puts small objects on one kept connection, a third of a boto3 client's work: 100,000 of them are minutes else."""

    def __init__(self) -> None:
        self._url = os.environ["AWS_ENDPOINT_URL"]
        keys = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        self._auth = S3SigV4Auth(keys, "s3", os.environ["AWS_DEFAULT_REGION"])
        self._connection = http.client.HTTPConnection(self._url.removeprefix("http://"), timeout=60)

    def put(self, key: str, body: bytes) -> None:
        request = AWSRequest("PUT", f"{self._url}/reshelve/{key}", data=body)
        self._auth.add_auth(request)
        self._connection.request("PUT", f"/reshelve/{key}", body, dict(request.headers))
        answer = self._connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status


def write_shard(entries: list[tuple[str, bytes]]) -> int:
    """These objects, from this process's own threads."""

    def write(part: list[tuple[str, bytes]]) -> int:
        writer = Writer()
        for key, body in part:
            writer.put(key, body)
        return len(part)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(write, [entries[n::THREADS] for n in range(THREADS)]))


def shards(versions: list[int], entries: int) -> Iterator[list[tuple[str, bytes]]]:
    """The log, which one process has to make: each entry holds the digest of the one before it."""
    found, before = [], ""
    for sequence in range(1, entries + 1):
        made = entry(sequence, versions, before)
        before = made.digest
        found.append((made.key, made.body))
        if len(found) == SHARD:
            yield found
            found = []
    yield found


def write_versions(store: ObjectStore, versions: list[int]) -> None:
    """Signed manifests, each of twenty files."""

    def write(version: int) -> None:
        day = f"{version // 1000}"
        manifest = {
            "ranker": RANKER, "version": version, "kind": "next_item", "created_at": "2026-01-01T03:00:00Z",
            "files": {f"variables/part-{n}": {"sha256": f"{n:064d}", "size": 10**6} for n in range(20)},
            "lineage": {
                "partition": f"{day[:4]}-{day[4:6]}-{day[6:]}", "run": "r", "spec_digest": "d", "code_version": "c",
            },
            "gate": {
                "verdict": "promote", "metric": "recall@20", "challenger": {"value": 0.21},
                "reasons": ["surely better than popularity", "not worse than the version that serves"],
            },
        }  # fmt: skip
        store.put_json(f"models/{RANKER}/{version}/manifest.json", signed_manifest(manifest))
        store.put(f"models/{RANKER}/{version}/saved_model.pb", b"x")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, versions))


def write_watch(store: ObjectStore, now: Pointer) -> None:
    """Three agents and six hours of looks."""
    serving = Serving(stable=now.stable, previous=now.previous)
    for name in ("one", "two", "three"):
        report = Report(
            agent=name, server="h:8500", at=datetime.now(UTC), sequence=now.sequence, serving=serving
        )
        write_report(store, RANKER, report)
    for look in range(40):
        traffic = tuple(
            VersionTraffic(
                version=getattr(now, role), role=role, requests=1000, errors=look % 3, p95_ms=10 + look % 5
            )
            for role in (VersionRole.STABLE, VersionRole.PREVIOUS)
        )
        at = datetime.now(UTC) - timedelta(minutes=10 * (40 - look))
        observations.write(store, Observation(ranker=RANKER, at=at, versions=traffic))


def seed(store: ObjectStore, versions: list[int], entries: int) -> float:
    """Everything; seconds it took."""
    began = time.monotonic()
    store.create_bucket()
    write_versions(store, versions)
    done = 0
    spawned = get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawned, initializer=end_with, initargs=(os.getpid(),)) as pool:
        for written in pool.map(write_shard, shards(versions, entries)):
            done += written
            print(f"{done:,} of {entries:,} log entries, {time.monotonic() - began:.0f} s", file=sys.stderr)
    now = pointer(entries, versions)
    store.put_json(f"deployments/{RANKER}/pointer.json", now.model_dump(mode="json"))
    write_watch(store, now)
    return time.monotonic() - began


def serve(machine: Machine, environment: dict[str, str]) -> None:
    """Start Airflow's API server; returns once it answers."""
    airflow.prepare(machine, environment)
    start(airflow.process_command("api-server"), machine.logs / "api-server", env=environment, cwd=Path.cwd())
    wait_until(lambda: port_is_open(machine.ports.airflow_port), 240, "Airflow's API server")


class Viewer:
    """Somebody logged in, on one kept connection as a browser's."""

    def __init__(self, machine: Machine) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", machine.ports.airflow_port, timeout=120)
        login = json.dumps({"username": "viewer", "password": machine.secrets.passwords["viewer"]})
        body = self._ask("POST", "/auth/token", login, {"Content-Type": "application/json"})
        self._cookie = {"Cookie": f"_token={json.loads(body)['access_token']}"}

    def milliseconds(self, path: str, says: str) -> float:
        """How long a page takes; it has to say something, so that no error page is measured."""
        began = time.perf_counter()
        body = self._ask("GET", path, None, self._cookie)
        took = 1000 * (time.perf_counter() - began)
        assert says in body, f"{path}: {body[:2000]}"
        return took

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> str:
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        assert answer.status < 300, f"{path}: {answer.status}, {text[-2000:]}"
        return text


def measure(viewer: Viewer, rounds: int, versions: list[int], entries: int) -> Iterator[dict[str, Any]]:
    """Each page: the first request, then the median and the slowest of `rounds`."""
    page = f"/reshelve/releases/{RANKER}"
    pages = {
        "overview": ("/reshelve/releases", str(versions[-1])),
        "ranker": (page, f"{entries:,} entries"),
        "old log": (f"{page}?newest={entries // 2}", f"move {entries // 2} of"),
        "old versions": (f"{page}?page=50", str(versions[len(versions) // 2])[:4]),
    }
    cold = viewer.milliseconds("/reshelve/releases/search", "never released")  # what a process imports once
    yield {"page": "of a process", "first": cold}
    for name, (path, says) in pages.items():
        first, *others = [viewer.milliseconds(path, says) for _ in range(rounds + 1)]
        yield {"page": name, "first": first, "median": statistics.median(others), "max": max(others)}


def main() -> int:
    """Seed, serve, ask; exit 1 over the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-releases-") as folder:
        machine = Machine(Path(folder), Ports(**{name: free_port() for name in Ports.model_fields}))
        environment = {
            **machine.environment(),
            "RESHELVE_HOME": folder,  # its keys, not those of a platform that may run here
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{machine.airflow}/airflow.db",
        }
        os.environ.update({name: value for name, value in environment.items() if name != "PATH"})
        settings.cache_clear()
        try:
            seaweedfs.start_seaweedfs(machine.store, machine.ports.s3_port, machine.logs / "s3")
            keys.make(if_missing=True)
            store, versions = ObjectStore("reshelve"), numbers(asked.versions)
            seconds = seed(store, versions, asked.entries)
            serve(machine, environment)
            found = list(measure(Viewer(machine), asked.rounds, versions, asked.entries))
        finally:
            stop_children()
    for line in found:
        times = "  ".join(f"{name} {line[name]:6.0f}" for name in ("first", "median", "max") if name in line)
        print(f"{line['page']:<13} {times} ms")
    slowest = max(line["max"] for line in found if "max" in line)
    result = {
        "bench": "releases",
        "versions": asked.versions,
        "entries": asked.entries,
        "seed_seconds": round(seconds),
    }
    pages = {line["page"]: {k: round(v, 1) for k, v in line.items() if k != "page"} for line in found}
    print(json.dumps({**result, "pages": pages, "slowest_ms": round(slowest, 1), "limit_ms": LIMIT_MS}))
    return int(slowest > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
