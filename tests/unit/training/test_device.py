"""What a process computes on. There is no GPU where the tests run: what torch would say of one is said for it."""

from __future__ import annotations

import re

import pytest
import torch

from reshelve.errors import EXIT_CONFIGURATION, ConfigurationError
from reshelve.training.device import choose_device, wait_for_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A host of two GPUs; the list holds those that were taken."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    return taken


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a GPU")
def test_a_host_without_gpus_computes_on_its_processor_however_many_processes() -> None:
    assert choose_device(3, local_processes=4, nccl=False).torch_device.type == "cpu"
    wait_for_device()


def test_each_process_of_a_host_takes_a_gpu_of_its_own(two_gpus: list[torch.device]) -> None:
    devices = [choose_device(rank, local_processes=2, nccl=True) for rank in range(2)]
    assert [device.torch_device.index for device in devices] == [0, 1]
    assert two_gpus == [device.torch_device for device in devices]
    assert all(device.bf16 for device in devices)


@pytest.mark.parametrize(
    ("rank", "processes", "nccl", "words"),
    [
        (0, 3, True, r"training\.processes: 3 .* 2 GPUs"),
        (2, 3, True, r"training\.processes: 3 .* 2 GPUs"),
        (0, 1, False, "built without NCCL"),
    ],
)
def test_gpus_that_the_job_cannot_use_are_named_before_any_work(
    two_gpus: list[torch.device], rank: int, processes: int, nccl: bool, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as told:
        choose_device(rank, processes, nccl)
    assert told.value.exit_code == EXIT_CONFIGURATION
    assert re.search("CUDA_VISIBLE_DEVICES", str(told.value)), "how to train without them is not said"
    assert not two_gpus
