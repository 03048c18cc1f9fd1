"""The tokens of titles, and the vectors that an encoder makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.training.device import Device
from reshelve.training.model import RankerModel, pad
from reshelve.training.title_head import TitleHead

_TOGETHER = 128  # titles encoded at once


class Titles:
    """The tokens of the catalogue's titles, in the order of its indices, one after another; title i has those from `starts[i]`."""

    def __init__(self, rows: list[list[int]], titled: np.ndarray, pad_id: int) -> None:
        self.tokens = np.concatenate([np.asarray(row, np.int64) for row in rows])
        self.starts = np.cumsum([0, *map(len, rows)])
        self.titled, self.pad_id = titled, pad_id

    @classmethod
    def read(cls, examples: Path, max_length: int, pad_id: int) -> Titles:
        """Of `catalogue.parquet`; an item that is called by its id has no title."""
        table = pq.read_table(examples / "catalogue.parquet").sort_by("index")
        items, titles = table["item_id"].to_pylist(), table["title"].to_pylist()
        titled = np.array([bool(title) and title != item for item, title in zip(items, titles, strict=True)])
        texts = [title or item for item, title in zip(items, titles, strict=True)]
        tokenizer = load_tokenizer(examples / "tokenizer.json", max_length)
        return cls([encoding.ids for encoding in encode(tokenizer, texts)], titled, pad_id)

    def __len__(self) -> int:
        return len(self.titled)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return np.diff(self.starts)

    def padded(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """Token ids and mask [N, T] of the titles at these places."""
        rows = [self.tokens[self.starts[place] : self.starts[place + 1]].tolist() for place in chosen]
        return pad(rows, self.pad_id)

    def pieces(self) -> Iterator[np.ndarray]:
        """Places of those with a title, like lengths together."""
        places = np.flatnonzero(self.titled)
        places = places[np.argsort(self.lengths[places], kind="stable")]
        for start in range(0, len(places), _TOGETHER):
            yield places[start : start + _TOGETHER]


def set_vectors(model: RankerModel, titles: Titles, device: Device) -> None:
    """Give the head the vectors of all titles as the encoder reads them now. Not in place: weights that were put aside keep theirs."""
    head = model.items
    assert isinstance(head, TitleHead)
    head.vectors = encoded(model, titles, device)


@torch.no_grad()
def encoded(model: RankerModel, titles: Titles, device: Device) -> Tensor:
    """The vectors [C, D] of titles; 0 where there is none."""
    head = model.items
    assert isinstance(head, TitleHead)
    vectors = head.vectors.new_zeros(len(titles), head.vectors.shape[1])
    for places in titles.pieces():
        ids, mask = (each.to(vectors.device) for each in titles.padded(places))
        with device.autocast():
            vectors[torch.from_numpy(places)] = head.vector(model.pooled(ids, mask))
    return vectors


@torch.no_grad()
def vectors_of(train: Path, titles: Sequence[str]) -> np.ndarray:
    """float32 [N, D]: what the model in `train`, a train stage's files, makes of any titles; 0 of an empty one."""
    model = RankerModel.load(train)
    tokenizer = load_tokenizer(train / "tokenizer.json", model.form.max_length)
    rows = [encoding.ids for encoding in encode(tokenizer, titles)]
    tokens = Titles(rows, np.array([title != "" for title in titles], bool), model.pad_id)
    made = encoded(model, tokens, Device(torch.device("cpu"), bf16=False)).numpy()
    return np.asarray(made, np.float32)
