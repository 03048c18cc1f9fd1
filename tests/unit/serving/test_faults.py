"""kill -9 of everything at random moments, bytes that are swapped, cut short or replayed: nothing wrong is ever served.

Real processes: S3, the model server, its agent, publishers and releases. `RESHELVE_FAULTS_SEED` repeats a run,
`RESHELVE_FAULTS` says how many processes are killed (default 54).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import judged

from reshelve.client.client import RankingClient
from reshelve.deployments.deployment_log import pointer_key, problems, read_log, read_pointer, settle
from reshelve.errors import ReshelveError
from reshelve.platform import seaweedfs
from reshelve.processes import free_port, start, stop_group, wait_until
from reshelve.protocol.reports import live_reports
from reshelve.store import objects, signatures
from reshelve.store.versions import download_version, list_versions

pytestmark = [pytest.mark.slow, pytest.mark.platform, pytest.mark.timeout(1200)]

FIRST_SCORE = {"good": 0.4, "other": 0.8}
_PUBLISH = """
import sys
from datetime import date
from pathlib import Path
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.store import uploads
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import object_store
uploads.PART_BYTES = 5 * 1024 * 1024
run = Run(load_ranker("recommend"), date.fromisoformat(sys.argv[1]), object_store(), Path(sys.argv[2]))
publish(run)
"""


class Asker(threading.Thread):
    """A customer who never stops asking, and knows what each version must answer."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.wrong: list[str] = []
        self.answers: dict[tuple[str, int], int] = {}
        self.models: dict[int, str] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        with RankingClient(self.address) as client:
            while not self.stop.wait(0.05):
                for label in ("stable", "canary"):
                    self._ask(client, label)

    def _ask(self, client: RankingClient, label: str) -> None:
        try:
            answer = client.predict("recommend", {"history": ["title 1"]}, label=label, timeout=2, absence=0)
        except ReshelveError:
            return  # killed, or not loaded: no answer is not a wrong one
        key = (label, answer.version)
        self.answers[key] = self.answers.get(key, 0) + 1
        expected = FIRST_SCORE.get(self.models.get(answer.version, ""))
        score = float(answer.outputs["score"][0][0])
        if expected is None or abs(score - expected) > 1e-6:
            self.wrong.append(f"{label}: version {answer.version} scored {score}, {expected} was expected")


class World:
    """Everything that can be killed, and everything that can go wrong with bytes."""

    def __init__(self, host: Any, tmp_path: Path, dice: random.Random, models: dict[str, Path]) -> None:
        self.host, self.path, self.dice, self.models = host, tmp_path, dice, models
        self.port, self.killed, self.day = free_port(), 0, 1
        self.asker = Asker(host.grpc)
        self.agent = self.server = 0
        self.s3: Any = None
        self.old_pointer: bytes | None = None

    def start_s3(self) -> None:
        self.s3 = seaweedfs.start_seaweedfs(self.path / "own-s3", self.port, self.path / "own-s3.log")

    @property
    def store(self) -> objects.ObjectStore:
        return objects.object_store()

    def pause(self, most: float) -> None:
        time.sleep(self.dice.random() * most)

    def kill_agent(self) -> None:
        self.host.kill(self.agent)
        self.killed += 1
        self.dice.choice([self.nothing, self.swap_files, self.half_a_copy, self.cut_a_file])()
        self.agent = self.host.start_agent()

    def kill_server(self) -> None:
        self.host.kill(self.server)
        self.killed += 1
        self.server = self.host.start_server()

    def kill_s3(self) -> None:
        self.host.kill(self.s3.pid)
        self.s3.wait()
        self.killed += 1
        self.pause(1)
        self.start_s3()

    def kill_publisher(self) -> None:
        """Its next try goes on; the version exists once it got through."""
        process = start([sys.executable, "-c", _PUBLISH, *self.package()], self.path / "publish.log")
        self.pause(3)
        self._kill(process)
        done = subprocess.run(
            [sys.executable, "-c", _PUBLISH, *self.packaged], capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        self.day += 1

    def kill_release(self) -> None:
        """Of the newest version; whoever asks next goes on where it was."""
        newest = list_versions(self.store, "recommend")[-1]
        command = [sys.executable, "-m", "reshelve.cli", "release", "--ranker", "recommend", "--by", "faults"]
        process = start([*command, "--version", str(newest)], self.path / "release.log")
        self.pause(6)
        self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            self.host.kill(process.pid)
            process.returncode = -9
            self.killed += 1

    def package(self) -> list[str]:
        """A new night's version, ready to be published; every other night's scores twice as high."""
        from reshelve.lineage.run import Run
        from reshelve.pipeline.references import load_ranker

        model = self.dice.choice(sorted(FIRST_SCORE))
        day = date(2011, 8, 1 + self.day % 28).replace(year=2011 + self.day // 28)
        run = Run(load_ranker("recommend"), day, self.store, self.path / "work")
        target = run.stage("package").directory / "version"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.models[model], target)
        (target / "assets.extra" / "ballast").write_bytes(os.urandom(12_000_000))
        results: dict[str, dict[str, Any]] = {"package": {}, "examples": {}, "train": {}}
        for stage, result in {**results, "gate": judged(run, {"verdict": "promote"})}.items():
            run.stage(stage).commit(result)
        self.asker.models[int(f"{day:%Y%m%d}001")] = model
        self.packaged = [day.isoformat(), str(self.path / "work")]
        return self.packaged

    def nothing(self) -> None:
        """Just dead."""

    def local(self) -> list[Path]:
        return sorted(p for p in (self.host.models / "recommend").glob("2*") if p.is_dir())

    def swap_files(self) -> None:
        """Two versions with each other's files, while no agent looks. A server that runs has read its own."""
        found = self.local()
        if len(found) > 1:
            one, two = self.dice.sample(found, 2)
            other = one.with_name(".swap")
            one.rename(other)
            two.rename(one)
            other.rename(two)

    def half_a_copy(self) -> None:
        """As an agent leaves it that was killed: nothing under an integer, or an integer without its manifest."""
        version = self.dice.choice([".incoming-20991231001", "20991231001"])
        directory = self.host.models / "recommend" / version
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "saved_model.pb").write_bytes(b"half")

    def cut_a_file(self) -> None:
        for path in self.local()[:1]:
            graph = path / "saved_model.pb"
            graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])

    def replay_pointer(self) -> None:
        """Yesterday's pointer object, put back by a backup that was restored."""
        found = self.store.get(pointer_key("recommend"))
        if self.old_pointer is not None:
            self.store.put(pointer_key("recommend"), self.old_pointer)
            self.pause(1)
            settle(self.store, "recommend")
        elif found is not None:
            self.old_pointer = found.body

    def tampered_version(self) -> None:
        """A version that somebody without a key wrote, offered by somebody who does not ask."""
        version, prefix = 20111231001, "models/recommend/20111231001"
        newest = list_versions(self.store, "recommend")[-1]
        manifest = self.store.get_json(f"models/recommend/{newest}/manifest.json")
        self.store.put_json(f"{prefix}/manifest.json", {**manifest, "version": version})
        command = [sys.executable, "-m", "reshelve.cli", "release", "--ranker", "recommend"]
        done = subprocess.run(
            [*command, "--version", str(version)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 65 and "changed after it was signed" in done.stderr, done.stderr
        self.store.delete([f"{prefix}/manifest.json"])


def test_nothing_wrong_is_served_whatever_dies(
    store: objects.ObjectStore,
    tmp_path: Path,
    host: Any,
    saved_models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = int(os.environ.get("RESHELVE_FAULTS_SEED", "20110830"))
    wanted = int(os.environ.get("RESHELVE_FAULTS", "54"))
    dice = random.Random(seed)
    world = World(host, tmp_path, dice, saved_models)
    world.start_s3()
    keys = seaweedfs.credentials(world.path / "own-s3")
    for name, value in seaweedfs.environment(world.port, keys).items():
        monkeypatch.setenv(name, value)
    objects.object_store.cache_clear()
    try:
        world.store.create_bucket()
        world.package()
        subprocess.run([sys.executable, "-c", _PUBLISH, *world.packaged], check=True, capture_output=True)
        world.day += 1
        world.agent, world.server = host.start_agent(), host.start_server()
        first = list_versions(world.store, "recommend")[-1]
        command = [sys.executable, "-m", "reshelve.cli", "release", "--ranker", "recommend", "--json"]
        subprocess.run([*command, "--version", str(first)], check=True, capture_output=True, timeout=240)
        world.asker.start()
        faults = [world.kill_agent] * 9 + [world.kill_s3] * 3 + [world.kill_publisher] * 3
        faults += [world.kill_release] * 5 + [world.replay_pointer] * 2
        servers = max(2, wanted // 12)
        history = []
        while world.killed < wanted:
            fault = dice.choice(faults)
            if servers and world.killed >= wanted - servers * (wanted // 6):
                fault, servers = world.kill_server, servers - 1
            history.append(fault.__name__)
            fault()
            world.pause(1.5)
        world.tampered_version()

        newest = list_versions(world.store, "recommend")[-1]
        # A release that was killed waits for whoever asks for its version again; a newer one has to take it back first.
        withdraw = [sys.executable, "-m", "reshelve.cli", "withdraw", "--ranker", "recommend", "--json"]
        subprocess.run(withdraw, check=True, capture_output=True, timeout=60)

        def promoted() -> bool:
            done = subprocess.run([*command, "--version", str(newest)], capture_output=True, timeout=400)
            return done.returncode == 0

        wait_until(promoted, 300, f"the release of {newest} after all that", every=2)
        pointer = read_pointer(world.store, "recommend")
        assert pointer is not None and (pointer.stable, pointer.canary) == (newest, None)
        wait_until(lambda: world.asker.answers.get(("stable", newest), 0) > 20, 60, "answers of the newest")
        (report,) = live_reports(world.store, "recommend")
        assert set(report.serving.available) == pointer.wanted and report.error is None, report
        log = read_log(world.store, "recommend")
        assert problems(log) == []
        assert {e.pointer.stable for e in log} - {None} <= set(world.asker.models)
        for version in list_versions(world.store, "recommend"):
            download_version(world.store, "recommend", version, tmp_path / "check" / str(version))
        assert world.asker.wrong == [], json.dumps(
            {"seed": seed, "history": history, "wrong": world.asker.wrong[:5]}
        )
        assert world.killed >= wanted and signatures.trust().required
        sys.stderr.write(json.dumps({"seed": seed, "killed": world.killed, "faults": len(history), "moves": len(log),
                          "answers": sum(world.asker.answers.values())}))  # fmt: skip
    finally:
        world.asker.stop.set()
        stop_group(world.s3.pid)
