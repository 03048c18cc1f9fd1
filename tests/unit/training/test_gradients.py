"""Gradients that two real processes sum are those of one process with all of their examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # starts Horovod

# Three steps of two passes each; the second parameter is left out of every pass, the third of some. Buffers of 40 bytes:
# several travel, one of them started by a hook and one by `add_up`.
SCRIPT = """
import horovod.torch as hvd, torch
from reshelve.training import gradients as module
module.BUFFER_BYTES = 40
module.prefer_settings()
hvd.init()
torch.manual_seed(0)
weights = [torch.randn(size, requires_grad=True) for size in (10, 3, 7, 20)]
found = module.Gradients(weights, passes=2)
for step in range(3):
    data = torch.randn(4, 40)  # the same on both: [process and pass, inputs]

    def loss(row, used):
        parts = [weight * row[:len(weight)] for place, weight in enumerate(weights) if place in used]
        return sum(part.sum().square() for part in parts)

    def used(row):
        return (0, 2, 3) if (step + row) % 3 else (0, 3)

    whole = sum(loss(data[row], used(row)) for row in range(4)) / 4
    wanted = torch.autograd.grad(whole, weights, allow_unused=True)
    found.clear(stop=step == 1 and hvd.rank() == 1)
    for row in (2 * hvd.rank(), 2 * hvd.rank() + 1):
        (found.share * loss(data[row], used(row))).backward()
    assert found.add_up() == (step == 1 and hvd.size() > 1)
    for weight, want in zip(weights, wanted):
        torch.testing.assert_close(weight.grad, torch.zeros_like(weight) if want is None else want)
assert len(found._buffers) == (3 if hvd.size() > 1 else 0)
print("agreed", flush=True)
"""


def test_two_processes_have_the_gradients_of_one_with_all_their_examples(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "reshelve.training.horovodrun", "--gloo", "--network-interfaces", "lo"]
    done = subprocess.run(
        [*command, "-np", "2", sys.executable, str(script)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agreed") == 2
