"""What grows with the shop: tables, versions and answers by products, the examples stage by events, retrieval beside peers.

    make bench-scale ARGS="--sizes 1000 10000 --peers DIR"        (some 20 minutes without ARGS; --full: everything, hours)

Each step runs in a process of its own, which says what it used (CPU-seconds, peak memory); one that fails, is out of memory or
of time is named with its reason, and the rest goes on; one that is stopped (Ctrl-C) prints what it has. Titles are real ones from RESHELVE_DATA while there are any (else the
sample's), recombined beyond; searches are drawn, and what is meant by each question is known (`scale_catalogue`). Versions have a
random encoder of two layers, which the blend gives no weight: what is answered rests on memory and text, and can be computed offline
for all items (`scale_reference`). Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that spins while it waits would count as work

from scale_given import Given
from scale_measure import cpu_seconds, status_mb
from scale_plan import Task, begun, planned, run
from scale_table import show

from reshelve.settings import PROJECT

SIZES, EVENTS = (1_000, 10_000, 100_000), (1_000_000,)
ALL_SIZES, ALL_EVENTS = (*SIZES, 1_000_000), (1_000_000, 10_000_000, 50_000_000)
PARTS = ("search", "next_item", "retrieval", "events")


def child(task: Task, given: Given) -> None:
    """One step, and what this process has used for it; its peak holds the libraries too, which `base_mb` alone are."""
    from scale_registry import made

    most = int(given.memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    here = task.folder(given)
    here.mkdir(parents=True, exist_ok=True)
    step = made(task.step, here, given, task.size)
    base, cpu = status_mb("VmRSS"), cpu_seconds()
    found = step()
    used = {
        "cpu_s": cpu_seconds() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "base_mb": base,
    }
    # Four places: no figure here is as sure as that.
    print(json.dumps({n: round(v, 4) if isinstance(v, float) else v for n, v in (used | found).items()}))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of at least 1")
    return number


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument(
        "--sizes", type=_positive, nargs="*", help=f"Products (default {' '.join(map(str, SIZES))})."
    )
    found.add_argument(
        "--events", type=_positive, nargs="*", help=f"Events (default {' '.join(map(str, EVENTS))})."
    )
    found.add_argument("--full", action="store_true", help="Up to a million products and 50 million events.")
    found.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="What is measured.")
    found.add_argument(
        "--peers", type=Path, help="Where pip put faiss-cpu and bm25s (pip install --target DIR)."
    )
    found.add_argument("--questions", type=_positive, default=100, help="Whose answers are compared.")
    found.add_argument(
        "--rounds", type=_positive, default=100, help="Requests of one text; of 32: a twentieth."
    )
    found.add_argument(
        "--width", type=_positive, default=384, help="Of the encoder; the head over items is twice as wide."
    )
    found.add_argument("--vectors", choices=("auto", "encoder", "projections"), default="auto",
                       help="Of titles, for the peers: the sample's base model, or projections of n-grams (auto: above 20,000).")  # fmt: skip
    found.add_argument("--threads", type=_positive, default=2, help="Of whatever answers.")
    found.add_argument("--seed", type=int, default=20260302)
    found.add_argument("--minutes", type=float, default=30, help="The most that one step may take.")
    found.add_argument(
        "--memory-gb", type=float, help="The most that one step may have (default: 0.7 of the machine's)."
    )
    found.add_argument("--keep", type=Path, help="Leave catalogues, tables and versions here.")
    found.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return found


def main() -> None:
    """Plan, run step by step, print."""
    args = parser().parse_args()
    if args.child:
        child(Task.model_validate_json(args.child[0]), Given.model_validate_json(args.child[1]))
        return
    if args.peers and not args.peers.is_dir():
        parser().error(
            f"--peers {args.peers}: expected a folder, made by pip install --target {args.peers} faiss-cpu bm25s"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    sizes = args.sizes if args.sizes is not None else ALL_SIZES if args.full else SIZES
    events = args.events if args.events is not None else ALL_EVENTS if args.full else EVENTS
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as temporary:
        given = Given(
            data=Path(os.environ.get("RESHELVE_DATA", PROJECT.parent / "shared" / "data")),
            work=(args.keep or Path(temporary)).absolute(), peers=args.peers and args.peers.absolute(),
            seed=args.seed, threads=args.threads, width=args.width, rounds=args.rounds, questions=args.questions,
            vectors=args.vectors, memory_gb=args.memory_gb or 0.7 * memory,
        )  # fmt: skip
        command = [sys.executable, __file__, "--child"]
        found = begun(given)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            run(planned(sizes, events, args.parts), given, command, args.minutes * 60, found)
        finally:  # hours of figures are not lost with the last
            show(found)
            print(json.dumps(found))


if __name__ == "__main__":
    main()
