"""Print how much of each package the tests of the last `make coverage` ran: lines, branches, and both together."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from coverage import Coverage

ROOTS = ("include/", "plugins/")


def package(file: str) -> str:
    """The package of a file: `reshelve.store` of include/reshelve/store/objects.py."""
    for root in ROOTS:
        file = file.removeprefix(root)
    return ".".join(Path(file).parts[:2] if len(Path(file).parts) > 2 else Path(file).parts[:1])


def share(done: int, all_there_are: int) -> str:
    """A percentage, or a dash where there is nothing."""
    return f"{100 * done / all_there_are:5.1f} %" if all_there_are else "      –"


def main() -> None:
    """Join what every process left, and print the table."""
    measured = Coverage()
    measured.load()  # pytest has joined what its own processes left; their children's may still lie beside it
    measured.combine()
    measured.save()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(path))
        files = json.loads(path.read_text())["files"]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for file, figures in files.items():
        for name in (package(file), "together"):
            found[name].update(
                {key: value for key, value in figures["summary"].items() if type(value) is int}
            )
    print(f"{'package':<28}{'lines':>8}{'run':>10}{'branches':>10}{'run':>10}")
    for name in [*sorted(found.keys() - {"together"}), "together"]:
        sums = found[name]
        lines = f"{sums['num_statements']:>8}{share(sums['covered_lines'], sums['num_statements']):>10}"
        branches = f"{sums['num_branches']:>10}{share(sums['covered_branches'], sums['num_branches']):>10}"
        print(f"{name:<28}{lines}{branches}")


if __name__ == "__main__":
    main()
