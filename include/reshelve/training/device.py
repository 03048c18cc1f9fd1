"""What one process computes on, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reshelve.errors import ConfigurationError

# With either of these a CPU multiplies bf16 matrices faster than fp32; without, autocast only costs.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Device:
    """A device and whether its matrix products run in bf16 (weights and losses stay fp32)."""

    torch_device: torch.device
    bf16: bool

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)

    def __str__(self) -> str:
        precision = "bf16" if self.bf16 else "fp32"
        if self.torch_device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.torch_device)}, {precision})"
        return f"cpu ({torch.get_num_threads()} threads, {precision})"


def choose_device(local_rank: int, local_processes: int = 1, nccl: bool = True) -> Device:
    """This process's own accelerator where the host has any, else the CPU.

    Raises ConfigurationError where the host has accelerators but fewer than the job's `local_processes` on it, or a Horovod
    without `nccl`, which cannot move what is on one.
    """
    if torch.cuda.is_available():
        _check_accelerators(torch.cuda.device_count(), local_processes, nccl)
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        return Device(device, torch.cuda.is_bf16_supported())
    return Device(torch.device("cpu"), bool(_BF16_FLAGS & cpu_flags()))


def _check_accelerators(accelerators: int, processes: int, nccl: bool) -> None:
    if not nccl:
        raise ConfigurationError(
            "this host has a GPU, but its Horovod was built without NCCL",
            "expected a CUDA toolkit with nvcc on PATH, then: RESHELVE_HOROVOD=nccl make setup (docs/how-to/gpu-hosts.md); "
            "or an empty CUDA_VISIBLE_DEVICES, to train on the processor",
        )
    if processes > accelerators:
        raise ConfigurationError(
            f"training.processes: {processes} on this host, which has {accelerators} "
            f"GPU{'s' if accelerators > 1 else ''}",
            f"expected {accelerators} at most: NCCL takes one process per GPU; "
            "or an empty CUDA_VISIBLE_DEVICES, to train on the processor",
        )


def wait_for_device() -> None:
    """Return when the accelerator has done what it was given, where there is one: before a clock is read."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cpu_flags() -> set[str]:
    """The instruction sets of this host's first processor; empty where the kernel does not say."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return set()
    for line in path.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
