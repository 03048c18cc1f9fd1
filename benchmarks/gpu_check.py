"""That training is right on this host's GPU: gradients, whole jobs, resuming, and what is saved.

    benchmarks/gpu_check.sh …        runs it, and benchmarks/gpu_speed.py after it, with all that they need

Everything is done by the real training code, in this process, on a tiny encoder with random weights; the same jobs then run on
the processor of the same host. Bounds: gradients within 1e-4 of the processor's in float32 (|a - b| / |b| over all
weights) and 5e-2 in bf16; a job's validation loss within 0.005 of the processor's; a resumed job's weights within 2 % of the
way that training went, 0 where nothing that adds in any order took part. Prints one line per check; exit code 1 where one
failed. `--device cpu` compares the processor with itself, to try the script.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from gpu_data import write_base, write_examples
from gpu_jobs import all_jobs, cut_off, job, run_jobs
from safetensors.torch import load_file

from reshelve.errors import ConfigurationError
from reshelve.training import spec as names
from reshelve.training import worker
from reshelve.training.batches import read_examples
from reshelve.training.device import Device, choose_device
from reshelve.training.gradients import BUFFER_BYTES, Gradients, _GradientBuffer, prefer_settings
from reshelve.training.initial import build_model
from reshelve.training.model import RankerModel

FLOAT32, BF16, LOSS, RESUMED = 1e-4, 5e-2, 0.005, 0.02
STEPS_STOPPED = 7  # after which the interrupted job is cut off


class Checks:
    """What was found, one line each."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, name: str, passed: bool, **numbers: Any) -> None:
        """Note and print one check."""
        self.found.append({"check": name, "passed": bool(passed), **numbers})
        shown = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers.items())  # fmt: skip
        print(f"{'ok    ' if passed else 'FAILED'} {name}: {shown}", flush=True)

    def guarded(self, name: str, check: Callable[[], None]) -> None:
        """Run one group of checks; what it raises is a failure of its own, and the others go on."""
        try:
            check()
        except Exception as error:  # noqa: BLE001  the other checks say more
            self.add(name, False, raised=f"{type(error).__name__}: {str(error)[:400]}")


def gradients_of(one: Any, device: Device) -> torch.Tensor:
    """The gradient of one batch by the worker's own backward pass, all weights in one row, float64."""
    model = build_model(one, 0).to(device.torch_device).train()
    with torch.no_grad():  # some layers begin as 0, and say nothing of what lies behind them
        torch.manual_seed(5)
        for value in model.parameters():
            value.add_((torch.randn(value.shape) * 0.02).to(value.device))
    batch = read_examples(one.examples / "train.parquet", one.kind).batch(torch.arange(40).numpy())
    worker.backward(one, model, batch.to(device.torch_device), device, 1.0, None, None)
    return torch.cat([
        (value.grad if value.grad is not None else torch.zeros_like(value)).flatten().cpu().double()
        for value in model.parameters()
    ])  # fmt: skip


def check_gradients(checks: Checks, place: Path, device: Device) -> None:
    """Each form of model and loss: this device in float32 and in bf16, beside the processor in float32."""
    for name, kind, values in all_jobs():
        if "adapter" in values.get("training", {}):
            continue
        one = job(place, name, kind, values, place / "gradients")
        wanted = gradients_of(one, Device(torch.device("cpu"), bf16=False))
        for bf16, bound in ((False, FLOAT32), (True, BF16)):
            found = gradients_of(one, Device(device.torch_device, bf16))
            off = float((found - wanted).norm() / wanted.norm())
            checks.add(f"gradients in {'bf16' if bf16 else 'float32'}: {name}", off <= bound, off=off, bound=bound)  # fmt: skip


def check_buffers(checks: Checks, device: Device) -> None:
    """Horovod's sum in place over buffers on this device, started by hooks, beside plain gradients."""
    torch.manual_seed(1)
    sizes = (BUFFER_BYTES // 8, 1000, BUFFER_BYTES // 8, 17)
    weights = [torch.randn(size, device=device.torch_device, requires_grad=True) for size in sizes]
    gradients = Gradients(weights, passes=2)
    gradients._buffers = [
        _GradientBuffer("check.0", weights[:2], 2),
        _GradientBuffer("check.1", weights[2:], 2),
    ]
    off = 0.0
    for step in range(3):
        wanted = [((2 + step) * weight).detach() for weight in weights]
        gradients.clear()
        for _ in range(2):
            (gradients.share * sum((weight.square().sum() * (2 + step) / 2) for weight in weights)).backward()
        gradients.add_up()
        for weight, want in zip(weights, wanted, strict=True):
            assert weight.grad is not None
            off = max(off, float((weight.grad - want).norm() / want.norm()))
    checks.add("Horovod's sums on the device", off <= 1e-6, off=off, nccl=hvd.nccl_built())


def check_jobs(checks: Checks, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Each job's validation beside the same job's on the processor."""
    for name, result in ours.items():
        loss, other, first = result["validation_loss"], theirs[name]["validation_loss"], result["first_validation_loss"]  # fmt: skip
        checks.add(
            f"job: {name}", abs(loss - other) <= LOSS and loss < first,
            loss=loss, on_the_processor=other, before_training=first, device=result["device"],
        )  # fmt: skip


def check_saved(checks: Checks, place: Path, output: Path, device: Device) -> None:
    """What a job on the device saved, loaded on the processor: the same scores as on the device."""
    for name, kind in (("pair", "pair"), ("next_item-patience", "next_item")):
        model = RankerModel.load(output / name)
        at = {str(value.device) for value in load_file(output / name / "model.safetensors").values()}
        batch = read_examples(place / f"examples-{kind}" / "validation.parquet", kind).batch(torch.arange(64).numpy())  # fmt: skip
        with torch.no_grad():
            wanted = model(*batch.inputs)
            found = model.to(device.torch_device)(*batch.to(device.torch_device).inputs).cpu()
        off = float((found - wanted).norm() / wanted.norm())
        checks.add(f"saved weights load on a processor: {name}", at == {"cpu"} and off <= FLOAT32, off=off)


def check_resume(checks: Checks, place: Path) -> None:
    """A job that was cut off, beside the same job twice without; and one more cut off, for the processor to go on with."""
    values = {"training": {"checkpoint_seconds": 1e-6}}
    weights = {}
    for name in ("whole", "again", "resumed", "moved"):
        one = job(place, name, "pair", values, place / name)
        if name in ("resumed", "moved"):
            cut_off(one, STEPS_STOPPED)
        if name != "moved":
            worker.train(one)
            weights[name] = _flat(load_file(one.output / "model.safetensors"))
    start = _flat(build_model(one, 0).state_dict())
    way = (weights["whole"] - start).norm()
    resumed, repeated = (float((weights[name] - weights["whole"]).norm() / way) for name in ("resumed", "again"))  # fmt: skip
    checks.add("a job resumes from its checkpoint", resumed <= RESUMED, off=resumed, two_whole_runs=repeated)


def _flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def on_the_processor(place: Path, answer: Path) -> None:
    """The same jobs, and the one that was cut off on the device, on the processor."""
    found = run_jobs(place, place / "processor")
    one = job(place, "moved", "pair", {"training": {"checkpoint_seconds": 1e-6}}, place / "moved")
    before = worker.load_checkpoint
    started: list[int] = []

    def load(*arguments: Any) -> Any:
        loaded = before(*arguments)
        started.append(loaded[0].step)
        return loaded

    worker.load_checkpoint = load
    worker.train(one)
    moved = json.loads((one.output / names.RESULT).read_text()) | {"started_at": started[0]}
    answer.write_text(json.dumps({"jobs": found, "moved": moved}))


def check_refusals(checks: Checks) -> None:
    """More processes than there are GPUs, and a Horovod that cannot reach them, are refused."""
    for name, arguments in (("two processes for each GPU", (0, 2 * torch.cuda.device_count(), True)), ("a Horovod without NCCL", (0, 1, False))):  # fmt: skip
        try:
            choose_device(*arguments)
            checks.add(f"refused: {name}", False)
        except ConfigurationError as error:
            checks.add(f"refused: {name}", True, headline=error.headline)


def main() -> int:
    """Run the checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--answer", type=Path, help="Write what was found here, as JSON.")
    parser.add_argument("--processor", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    prefer_settings()
    hvd.init()
    if arguments.processor:
        on_the_processor(arguments.processor, arguments.answer)
        return 0
    checks = Checks()
    device = choose_device(hvd.local_rank(), hvd.local_size(), bool(hvd.nccl_built()))
    checks.add("the worker's device", device.torch_device.type == arguments.device, device=str(device), bf16=device.bf16)  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        write_base(place / "base", "tiny")
        for kind in ("pair", "next_item"):
            write_examples(place / f"examples-{kind}", kind, arguments.examples, arguments.examples // 4)
        if torch.cuda.is_available():
            checks.guarded("refusals", lambda: check_refusals(checks))
        checks.guarded("gradients", lambda: check_gradients(checks, place, device))
        checks.guarded("Horovod's sums", lambda: check_buffers(checks, device))
        checks.guarded("resume", lambda: check_resume(checks, place))
        checks.guarded("jobs", lambda: beside_the_processor(checks, place, device))
    failed = sum(not one["passed"] for one in checks.found)
    print(f"{len(checks.found) - failed} of {len(checks.found)} checks passed", flush=True)
    if arguments.answer:
        arguments.answer.write_text(json.dumps(checks.found, indent=1))
    return int(failed > 0)


def beside_the_processor(checks: Checks, place: Path, device: Device) -> None:
    """Whole jobs here, then in a process that sees no GPU."""
    ours = run_jobs(place, place / "device")
    check_saved(checks, place, place / "device", device)
    answer = place / "processor.json"
    subprocess.run(
        [sys.executable, __file__, "--processor", str(place), "--answer", str(answer)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, timeout=240,
    )  # fmt: skip
    theirs = json.loads(answer.read_text())
    check_jobs(checks, ours, theirs["jobs"])
    moved, whole = theirs["moved"], json.loads((place / "whole" / names.RESULT).read_text())
    checks.add(
        "a job begun on the device goes on on a processor",
        moved["started_at"] == STEPS_STOPPED and abs(moved["validation_loss"] - whole["validation_loss"]) <= LOSS,
        loss=moved["validation_loss"], on_the_device=whole["validation_loss"], device=moved["device"],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
