"""Releases and rollbacks under constant load, through real processes: S3, the model server, its agent, the client library.

    python benchmarks/bench_roll.py [--requests 25000] [--rate 200] [--clients 16] [--threads 64] [--model DIR]

Clients ask at a constant rate (a request's latency counts from when it was due) while two versions are released by
shadow and canary, one canary is refused for failing on what customers ask, a second ranker loads for the first time, for
60 s, the server is killed while it loads a further version, and rollbacks are made at each of these moments. Prints what
happened, then one JSON line. `--model` takes a packaged version of a next_item ranker; without it a small graph with
90 MB of weights is built. The store runs at a low priority: it stands for one that is on machines of its own. The slow
load sleeps in its warm-up: it holds a load thread, and no processor. `--threads` are the server's gRPC threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from reshelve.agent.admin import ServerAdmin
from reshelve.agent.server_plan import Observed, VersionState
from reshelve.client.routing import Caller
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Offer, move_pointer, read_log
from reshelve.errors import DataError, TryAgainError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish as publish_run
from reshelve.platform import seaweedfs
from reshelve.processes import free_port, guarded, start, stop_group, wait_until, yield_to_others
from reshelve.rollout.release import release
from reshelve.rollout.roll_back import rollback
from reshelve.store import keys
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import sign_result

SLOW_LOAD = 60  # seconds
LATE = 0.05  # seconds that the load generator itself may be late; later requests are counted apart

BUILD = """
import json, sys, numpy as np, tensorflow as tf
from tensorflow.python.data.experimental.ops import testing
class Ranking(tf.Module):
    def __init__(self, fails, sleeps):
        self.fails, self.sleeps = fails, sleeps
        self.weights = tf.constant(tf.random.stateless_normal([60_000, 384], seed=[1, 2]))
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="history")])
    def ask(self, history):
        if self.sleeps:  # its warm-up asks for it
            steps = tf.where(history[0] == "sleep", self.sleeps * 10, 0)
            pause = testing.sleep(100_000)
            slept = tf.data.Dataset.range(tf.cast(steps, tf.int64)).apply(pause).reduce(np.int64(0), lambda n, _: n)
            with tf.control_dependencies([slept]):
                history = tf.identity(history)
        if self.fails:  # on what one customer in fifty asks, and on nothing recorded
            bad = tf.reduce_any(tf.strings.regex_full_match(history, ".*customer [0-9]*[05]0"))
            history = tf.where(bad, tf.reshape(history, [-1, tf.where(bad, 7, 1)])[:, 0], history)
        place = tf.strings.to_hash_bucket_fast(history, 60_000)
        vector = tf.gather(self.weights, place)
        score = tf.nn.softmax(tf.matmul(vector, self.weights[:100], transpose_b=True))
        top = tf.math.top_k(score, 20)
        names = tf.strings.join(["i", tf.strings.as_string(top.indices)])
        return {"item": names, "title": names, "score": top.values}
for argument in sys.argv[1:]:
    path, kind = argument.rsplit("=", 1)
    module = Ranking(kind == "fails", int(kind) if kind.isdigit() else 0)
    tf.saved_model.save(module, path, signatures={"serving_default": module.ask.get_concrete_function()})
from reshelve.export.warmup import write_warmup
from pathlib import Path
for argument in sys.argv[1:]:
    path, kind = argument.rsplit("=", 1)
    path = Path(path)
    requests = [("serving_default", {"history": [f"title {n}"] * batch}) for batch in (1, 8, 32) for n in range(4)]
    if kind.isdigit():
        requests = [("serving_default", {"history": ["sleep"]})]
    write_warmup(path, "recommend", requests)
    lines = [json.dumps({"item": f"i{n}", "title": f"title {n}", "events": 100 - n}) for n in range(100)]
    (path / "assets.extra" / "catalogue.jsonl").write_text("\\n".join(lines))
"""


SLEEPS = "RangeDataset,ReduceDataset,SleepDataset"  # what the slow ones wait with; no version of a shop may have it


def ranker(shares: tuple[float, ...] = (0.1, 0.5), shadow: int = 60, name: str = "recommend") -> Ranker:
    """The ranker whose versions are rolled; 200 requests are enough for a step here."""
    return Ranker.model_validate(
        {
            "name": name,
            "title": "The next item",
            "kind": "next_item",
            "data": {"source": "retail"},
            "gates": {"metric": "recall@20"},
            "release": {
                "shadow": {"requests": shadow},
                "canary": {"shares": shares, "step_minutes": 3, "max_error_increase": 0.005},
                "max_latency_ratio": 3,
            },
        }
    )


def publish(directory: Path, day: int, work: Path, name: str = "recommend") -> tuple[int, float]:
    """Publish a version of August `day`; its number and when its manifest was written."""
    run = Run(ranker(name=name), date(2011, 8, day), object_store(), work)
    target = run.stage("package").directory / "version"
    shutil.copytree(directory, target)
    run.stage("package").commit({"bytes": 1})
    run.stage("examples").commit({"verdicts": {}})
    run.stage("train").commit({"base": None})
    run.stage("gate").commit(
        sign_result(
            run.ranker.name,
            run.stage("package").directory / "version",
            {"verdict": "promote", "reasons": ["measured"]},
        )
    )
    version = int(publish_run(run)["version"])
    return version, time.time()


def load(server: str, rate: float, clients: int, output: Path, stop: Path) -> None:
    """The load generator, a process of its own: writes one line per request."""
    rows: list[tuple[float, float, float, int, str]] = []
    lock = threading.Lock()

    def client(number: int, caller: Caller) -> None:
        due = time.time() + number / rate
        asked = 0
        while not stop.exists():
            time.sleep(max(0.0, due - time.time()))
            began = time.time()
            session = f"customer {number}{asked % 997:03d}"
            try:
                version = caller.predict(
                    {"history": [f"title 1 ; title 2 ; {session}"]}, session=session, timeout=5
                ).version
                error = ""
            except Exception as problem:  # noqa: BLE001 - whatever it is, a customer had no answer
                version, error = 0, f"{type(problem).__name__}: {problem}"
            with lock:
                rows.append((due, began, time.time(), version, error))
            asked += 1
            due += clients / rate

    callers = [Caller("recommend", [server], object_store(), name=f"bench-{n}") for n in range(clients)]
    threads = [threading.Thread(target=client, args=(n, caller)) for n, caller in enumerate(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = [
        counts for caller in callers for by in caller.meter.report().counts.values() for counts in by.values()
    ]
    for caller in callers:
        caller.close()
    output.write_text(json.dumps({"rows": rows, "refusals": sum(counts.refusals for counts in counted)}))


class Watch:
    """When each version became AVAILABLE, asked of the server ten times a second."""

    def __init__(self, server: str) -> None:
        self.available: dict[int, float] = {}
        self.now: dict[str, Observed] = {"recommend": Observed(), "ads": Observed()}
        self._admin = ServerAdmin(server)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for name in ("recommend", "ads"):
                try:
                    self.now[name] = self._admin.observe(name)
                except TryAgainError:  # away, or a machine that is too busy to answer: look again
                    self.now[name] = Observed()
                for version in self.now[name].available:
                    self.available.setdefault(version, time.time())

    def wait_for(self, name: str, version: int, state: VersionState) -> float:
        """When a version was first seen in a state."""
        wait_until(
            lambda: self.now[name].states.get(version) is state, 240, f"{name} {version} {state}", every=0.02
        )
        return time.time()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()
        self._admin.close()


class Server(threading.Thread):
    """The model server, started again whenever it ends, as containers are."""

    def __init__(self, command: list[str], log: Path, threads: int) -> None:
        super().__init__(daemon=True)
        self._command, self._log = command, log
        self._environment = {"RESHELVE_SERVING_GRPC_MAX_THREADS": str(threads)}
        self._end = threading.Event()
        self.process = start(command, log, self._environment)

    def run(self) -> None:
        """Until `stop`."""
        while not self._end.wait(0.02):
            if self.process.poll() is not None:
                self.process = start(self._command, self._log, self._environment)

    def stop(self) -> None:
        """End it, and start it no more."""
        self._end.set()
        self.join()
        stop_group(self.process.pid)


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return round(float(np.quantile(values, share)) * 1000, 2) if values else float("nan")


def scenario(
    store: ObjectStore,
    models: dict[str, Path],
    address: str,
    server: Server,
    processes: list[subprocess.Popen[bytes]],
    args: argparse.Namespace,
) -> dict:
    """All that happens; gives the JSON line's numbers."""
    home = Path(os.environ["RESHELVE_HOME"])
    one, _ = publish(models["good"], 1, home / "work1")
    release(ranker(()), one, by="bench")
    rows_file, stop_file = home / "rows.json", home / "stop"
    command = [
        sys.executable,
        __file__,
        "--load",
        address,
        "--rate",
        str(args.rate),
        "--clients",
        str(args.clients),
    ]
    began = time.time()
    generator = start([*command, "--rows", str(rows_file), "--stop", str(stop_file)], home / "load.log")
    processes.append(generator)
    watch = Watch(address)
    rollbacks: list[tuple[str, float, int, int]] = []  # when, asked, from, to

    def say(what: str) -> float:
        print(f"{time.time() - began:7.1f} s  {what}", flush=True)
        return time.time()

    time.sleep(args.steady)
    loading: list[tuple[float, float]] = []
    published: dict[int, float] = {}

    def roll(model: str, day: int, rules: Ranker) -> tuple[int, str]:
        version, at = publish(models[model], day, home / f"work{day}")
        published[version] = say(f"{version} published") and at
        result = release(rules, version, by="bench")
        offered = next(
            e.pointer.moved_at
            for e in reversed(read_log(store, "recommend"))
            if e.action == "offer" and e.pointer.canary == version
        )
        if version in watch.available:
            loading.append((offered.timestamp(), watch.available[version]))
        say(f"{version} {result['state']}: {result['headline']}")
        return version, result["state"]

    def roll_back(when: str, to: int | None = None) -> None:
        asked = say(f"rollback {when}")
        back = rollback(ranker().name, to=to, by="bench", reason="bench")
        rollbacks.append((when, asked, back["from"], back["version"]))
        say(f"{back['version']} {back['state']}")
        time.sleep(4)

    two, first = roll("good", 2, ranker())
    bad, refused = roll("failing", 3, ranker(shadow=0))
    three, second = roll("good", 4, ranker())
    time.sleep(5)
    roll_back("while nothing loads")

    slow, _ = publish(models["slow"], 1, home / "work-slow", "ads")
    move_pointer(store, "ads", Offer(slow), by="bench", reason="bench")
    watch.wait_for("ads", slow, VersionState.LOADING)
    say("the second ranker begins its first load")
    roll_back("while another ranker loads for the first time", to=three)
    roll_back("while another ranker loads for the first time, again")
    still = watch.now["ads"].states.get(slow) is VersionState.LOADING
    watch.wait_for("ads", slow, VersionState.AVAILABLE)
    say("the second ranker has loaded")

    with ThreadPoolExecutor(1) as pool:
        killed_release = pool.submit(roll, "slower", 5, ranker(shadow=0))
        four = 20110805001
        watch.wait_for("recommend", four, VersionState.LOADING)
        killed_at = say("kill -9 of the server while it loads")
        os.killpg(server.process.pid, signal.SIGKILL)
        wait_until(lambda: not watch.now["recommend"].states, 60, "its end", every=0.02)
        watch.wait_for("recommend", two, VersionState.AVAILABLE)
        back_at = say("the server is back")
        roll_back("after the crash", to=three)
        try:
            _, fourth = killed_release.result()
        except DataError as error:  # the rollback took it back before the release had heard of the crash
            say(error.headline)
            fourth = "rolled_back"
    left = args.requests - (time.time() - began) * args.rate
    time.sleep(max(10.0, left / args.rate + 5))
    stop_file.touch()
    generator.wait(timeout=60)
    watch.close()
    states = (first, refused, second, fourth, still)
    assert states == ("promoted", "rolled_back", "promoted", "rolled_back", True), states
    said = json.loads(rows_file.read_text())
    return {
        **numbers(said["rows"], loading, published, (two, bad, three), (killed_at, back_at), store),
        **rolled_back(said["rows"], rollbacks),
        "refusals_retried": said["refusals"],
        "clients": args.clients,
        "grpc_threads": args.threads,
    }


def rolled_back(rows, rollbacks) -> dict:
    """When each rollback was asked for → seconds until the last answer of the version that it left."""
    found = {}
    for when, asked, left, _ in rollbacks:
        answers = [
            done for _, sent, done, version, _ in rows if version == left and asked - 5 < sent < asked + 4
        ]
        found[when] = round(max([0.0, *(done - asked for done in answers)]), 2)
    return {"rollback_to_served_s": found}


def numbers(rows, loading, published, made, down, store) -> dict:
    """From requests to the JSON line. `down`: from when the server was killed until it was back."""
    two, bad, three = made
    stable_at = {
        e.pointer.stable: e.pointer.moved_at.timestamp()
        for e in read_log(store, "recommend")
        if e.action == "promote"
    }
    busy = [(published[v], stable_at.get(v, published[v] + 30)) for v in (two, bad, three)]
    steady, during, late = [], [], 0
    for due, sent, done, _, _ in rows:
        late += sent - due > LATE and due < down[0]
        if any(a <= due <= b for a, b in loading):
            during.append(done - due)
        # What was due since the server was killed is asked late: the clients were waiting for it.
        elif due < down[0] and not any(a - 2 <= due <= b + 2 for a, b in busy):
            steady.append(done - due)
    failed = [error for _, sent, done, _, error in rows if error and not (done > down[0] and sent < down[1])]
    met_the_crash = [bool(error) for _, sent, done, _, error in rows if done > down[0] and sent < down[1]]
    first_answer = {v: min(done for _, _, done, version, _ in rows if version == v) for v in (two, three)}
    share_of_bad = sum(version == bad for *_, version, _ in rows)
    p99 = {"steady": percentile(steady, 0.99), "loading": percentile(during, 0.99)}
    return {
        "requests": len(rows),
        "failed": len(failed),
        "failures": failed[:3],
        "releases": 2,
        "refused_canaries": 1,
        "seconds_down": round(down[1] - down[0], 2),
        "while_down": {"requests": len(met_the_crash), "failed": sum(met_the_crash)},
        "p50_ms": {"steady": percentile(steady, 0.5), "loading": percentile(during, 0.5)},
        "p99_ms": p99,
        "p99_ratio": round(p99["loading"] / p99["steady"], 2),
        "seconds_loading": [round(b - a, 2) for a, b in loading],
        "requests_while_loading": len(during),
        "published_to_first_answer_s": [round(first_answer[v] - published[v], 2) for v in (two, three)],
        "published_to_stable_s": [round(stable_at[v] - published[v], 2) for v in (two, three)],
        "answers_of_the_refused": share_of_bad,
        "sent_late": late,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Start everything, run the scenario, stop everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=25_000)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=64, help="gRPC threads of the server")
    parser.add_argument("--steady", type=float, default=20, help="seconds before the first release")
    parser.add_argument("--model", type=Path, help="a packaged version of a next_item ranker")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load(args.load, args.rate, args.clients, args.rows, args.stop)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    home = Path(tempfile.mkdtemp(prefix="bench-roll-"))
    s3_port, grpc, rest = free_port(), f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    os.environ |= {"RESHELVE_HOME": str(home), "RESHELVE_BUCKET": "bench"}
    server: Server | None = None
    # The store stands for one on other machines. A process has the priority of the thread that starts it.
    other_machine = ThreadPoolExecutor(1, "other machine", yield_to_others, (19,))
    processes = [
        other_machine.submit(seaweedfs.start_seaweedfs, home / "s3", s3_port, home / "s3.log").result()
    ]
    try:
        os.environ |= seaweedfs.environment(s3_port, seaweedfs.credentials(home / "s3"))
        keys.make(if_missing=True)
        store = object_store()
        store.create_bucket()
        kinds = {"good": "good", "failing": "fails", "slow": str(SLOW_LOAD), "slower": "8"}
        models = {name: home / name for name in kinds}
        build = [f"{models[name]}={kind}" for name, kind in kinds.items()]
        subprocess.run(guarded([sys.executable, "-c", BUILD, *build]), check=True, stderr=subprocess.DEVNULL)
        if args.model:
            shutil.rmtree(models["good"])
            shutil.copytree(args.model, models["good"])
        served = home / "models"
        served.mkdir()
        command = [sys.executable, "-m", "reshelve.cli"]
        agent = ["agent", "--models", str(served), "--server", grpc, "--every", "0.5"]
        slow = {"RESHELVE_GRAPH_OPERATIONS": SLEEPS}
        processes.append(start([*command, *agent], home / "agent.log", slow))
        wait_until((served / "models.config").is_file, 60, "the agent")
        words = ["model-server", "--models", str(served), "--grpc", grpc, "--rest", rest]
        server = Server([*command, *words], home / "server.log", args.threads)
        server.start()

        def up() -> bool:
            admin = ServerAdmin(grpc, timeout=1)
            try:
                admin.observe("anything")
            except Exception:  # noqa: BLE001 - not up yet
                return False
            finally:
                admin.close()
            return True

        wait_until(up, 240, "the model server")
        print(json.dumps(scenario(store, models, grpc, server, processes, args)))
    finally:
        if server is not None:
            server.stop()
        for process in reversed(processes):
            stop_group(process.pid)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
