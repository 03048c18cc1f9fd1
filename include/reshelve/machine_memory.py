"""How much memory this process may have: the machine's, or less where its container has a limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_KIB = 1024
_UNLIMITED = 2**60  # cgroup v1 has no word for it but a number near 2**63


def most_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory and swap, the least of the machine's and its control groups'; None where the system does not say.

    `root`: where `proc` and `sys` are.
    """
    machine = _machine(root / "proc/meminfo")
    limits = [limit for limit in (machine, *_groups(root)) if limit is not None]
    return min(limits, default=None)


def _machine(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = {name: int(rest.split()[0]) * _KIB for name, _, rest in (line.partition(":") for line in lines)}
    return found["MemTotal"] + found.get("SwapTotal", 0) if "MemTotal" in found else None


def _groups(root: Path) -> Iterator[int]:
    """The limits of this process's control groups and of all above them, version 2 and 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _upwards(root / "sys/fs/cgroup", path):
                memory, swap = _number(group / "memory.max"), _number(group / "memory.swap.max")
                if memory is not None:
                    yield memory + (swap if swap is not None else _swap(root))
        elif "memory" in controllers.split(","):
            for group in _upwards(root / "sys/fs/cgroup/memory", path):
                both = _number(group / "memory.memsw.limit_in_bytes")
                memory = _number(group / "memory.limit_in_bytes")
                if both is not None or memory is not None:
                    yield both if both is not None else (memory or 0) + _swap(root)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    group = mount / path.strip("/")
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _number(path: Path) -> int | None:
    """A limit; None where there is none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def _swap(root: Path) -> int:
    with (root / "proc/meminfo").open() as lines:
        return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith("SwapTotal:"))
