"""What a process has used so far: processor seconds, and memory that it held or holds."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path


def cpu_seconds() -> float:
    """Of this process, since its start."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def status_mb(name: str) -> float:
    """A line of /proc/self/status in MB: `VmRSS`, or `VmHWM`, the most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}")


def forget_peak() -> None:
    """The most memory so far is what is held now, after everything free was given back."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def transient_mb(call: Callable[[], object]) -> float:
    """Memory beyond what was held before, while it runs."""
    forget_peak()
    before = status_mb("VmRSS")
    call()
    return max(0.0, status_mb("VmHWM") - before)
