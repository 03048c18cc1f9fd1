"""LoRA and AdaLoRA through `peft`, merged into plain weights before anything is saved: no later stage knows of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reshelve.config.ranker import Adapter as AdapterForm
from reshelve.training.model import RankerModel

_NAME = "default"


class TrainedAdapter:
    """The adapter of one job; afterwards only it and the head have gradients."""

    def __init__(self, model: RankerModel, form: AdapterForm, steps: int, seed: int) -> None:
        import peft

        torch.manual_seed(seed)
        self._model = model
        self._adalora = form.kind == "adalora"
        self._moments: dict[str, Tensor] = {}  # AdaLoRA's running importance of each weight
        self._masks: dict[str, Tensor] = {}  # AdaLoRA's verdict on each rank: 1 kept, 0 taken away
        if not self._adalora:
            plain = peft.LoraConfig(
                r=form.rank, lora_alpha=form.alpha, target_modules=list(model.family.adapted)
            )
            self._tuner: Any = peft.LoraModel(model.encoder, plain, _NAME)
            return
        config = peft.AdaLoraConfig(
            init_r=form.rank + max(1, form.rank // 2),
            target_r=form.rank,
            lora_alpha=form.alpha,
            target_modules=list(model.family.adapted),
            total_step=steps,
            tinit=steps // 10,
            tfinal=steps // 3,
            deltaT=max(1, steps // 100),
        )
        self._tuner = peft.AdaLoraModel(model.encoder, config, _NAME)
        self._config, self._ranks = config, self._tuner.rankallocator
        for name, value in self._parts("lora_"):
            for kind in ("exp_avg_ipt", "exp_avg_unc"):
                self._moments[f"{kind}.{name}"] = torch.zeros_like(value)
        for name, value in self._parts("lora_E"):
            self._masks[name] = torch.ones(len(value))

    def penalty(self) -> Tensor | float:
        """AdaLoRA's: how far its matrices are from orthogonal (Zhang et al., ICLR 2023, eq. 4). LoRA has none."""
        if not self._adalora:
            return 0.0
        found = []
        for name, value in self._parts("lora_"):
            if "lora_A" in name or "lora_B" in name:
                gram = value @ value.T if "lora_A" in name else value.T @ value
                found.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        return float(self._config.orth_reg_weight) * torch.stack(found).mean()

    def after_step(self, step: int) -> None:
        """AdaLoRA's move of ranks after `step` (1, 2, …), while the gradients are there."""
        if not self._adalora:
            return
        device = next(self._model.encoder.parameters()).device
        ranks = self._ranks
        for name, _ in self._parts("lora_"):
            # The allocator makes its own tensors; ours are given to it, so that a checkpoint has a say.
            ranks.ipt.setdefault(name, None)
            ranks.exp_avg_ipt[name] = self._moments[f"exp_avg_ipt.{name}"].to(device)
            ranks.exp_avg_unc[name] = self._moments[f"exp_avg_unc.{name}"].to(device)
        self._config.rank_pattern = {name: mask.bool().tolist() for name, mask in self._masks.items()}
        self._tuner.update_and_allocate(step)
        for name, kept in self._config.rank_pattern.items():
            self._masks[name].copy_(torch.tensor(kept, dtype=torch.float32))
        for kind in ("exp_avg_ipt", "exp_avg_unc"):
            for name, value in getattr(ranks, kind).items():
                self._moments[f"{kind}.{name}"].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """What changes as it trains, beside the weights: the live tensors."""
        return {**self._moments, **{f"mask.{name}": value for name, value in self._masks.items()}}

    def _parts(self, kind: str) -> list[tuple[str, Tensor]]:
        """peft's own names of the adapter's weights."""
        return [(name, value) for name, value in self._model.encoder.named_parameters() if kind in name]


def plain_weights(model: RankerModel) -> dict[str, Tensor]:
    """The model's weights by the names of a model without adapter, what an adapter learned added to its matrix."""
    state = model.state_dict()
    weights = {
        name: value for name, value in state.items() if ".lora_" not in name and ".ranknum" not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            base = f"{name}.base_layer"
            weights[f"{name}.weight"] = (
                weights.pop(f"{base}.weight") + module.get_delta_weight(_NAME).detach()
            )
            weights[f"{name}.bias"] = weights.pop(f"{base}.bias")
    return weights
