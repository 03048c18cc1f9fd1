"""What a piece of Python costs in a process of its own: its memory is nobody else's."""

from __future__ import annotations

import subprocess
import sys

_LAST = """
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_megabytes(code: str, **names: object) -> int:
    """The most memory that a process held which ran `code`, with `names` as its variables; it fails where `code` does."""
    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    done = subprocess.run(
        [sys.executable, "-c", given + code + _LAST], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])
