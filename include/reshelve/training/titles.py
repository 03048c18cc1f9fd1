"""Titles beside queries: which of them a training step reads, and the vectors of all of them.

A step reads the titles of what its queries led to, and for each some that are like it: in-batch and hard negatives. Both come
more often the more popular an item is, so each logit is corrected by the log of its chance to be among them (logQ: Yi et al.,
Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, 2019); as the log popularity is a part of the
logit, the cosine learns how the query differs from any other, and not what is popular.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy import sparse
from torch import Tensor

from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.training.batches import Batch
from reshelve.training.device import Device, choose_device
from reshelve.training.model import RankerModel, pad
from reshelve.training.title_head import TitleHead

HARD = 2
"""Titles like the chosen one that are read with it."""
_ALIKE = 20  # of which they are drawn
_MOST_HOLD = 20_000  # titles: a token that more of them hold tells no two apart, and would make each like all
_TOGETHER = 128  # titles encoded at once
_ROWS = 512  # whose likeness to all titles is held at once


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


@torch.no_grad()
def set_vectors(model: RankerModel, titles: Titles, device: Device) -> None:
    """Give the head the vectors of all titles as the encoder reads them now. Not in place: weights that were put aside keep theirs."""
    head = model.items
    assert isinstance(head, TitleHead)
    head.vectors = _vectors(model, head, titles, device)


@torch.no_grad()
def vectors_of(train: Path, titles: Sequence[str]) -> np.ndarray:
    """float32 [N, D]: what the model in `train` makes of titles that it was not trained with; 0 of an untitled one ("")."""
    model = RankerModel.load(train).eval()
    head, device = model.items, choose_device(0, nccl=True)
    assert isinstance(head, TitleHead)
    model.to(device.torch_device)
    tokenizer = load_tokenizer(train / "tokenizer.json", model.form.max_length)
    rows = [encoding.ids for encoding in encode(tokenizer, titles)]
    known = Titles(rows, np.array([title != "" for title in titles], bool), model.pad_id)
    return _vectors(model, head, known, device).cpu().numpy()


def _vectors(model: RankerModel, head: TitleHead, titles: Titles, device: Device) -> Tensor:
    vectors = head.vectors.new_zeros(len(titles), head.vectors.shape[1])
    for places in titles.pieces():
        ids, mask = (each.to(vectors.device) for each in titles.padded(places))
        with device.autocast():
            vectors[torch.from_numpy(places)] = head.vector(model.pooled(ids, mask)).float()
    return vectors


@dataclass(frozen=True)
class Alike:
    """For each item the places [C, K] of the titles most like it, and the running sum of their shares; 0 where there is none."""

    places: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, titles: Titles, wanted: np.ndarray) -> Alike:
        """Of the items `wanted`, by the cosine of their titles' tokens, each weighed by its rarity."""
        count = len(titles)
        kept = min(_ALIKE, count)
        places = np.zeros((count, kept), np.int64)
        sums = np.zeros((count, kept), np.float32)
        weighed = _weighed(titles)
        columns = weighed.T.tocsr()
        wanted = wanted[titles.titled[wanted]]
        for start in range(0, len(wanted), _ROWS):
            rows = wanted[start : start + _ROWS]
            like = (weighed[rows] @ columns).toarray()
            like[np.arange(len(rows)), rows] = 0.0
            best = np.argsort(-like, axis=1, kind="stable")[:, :kept]
            places[rows] = best
            sums[rows] = np.cumsum(np.take_along_axis(like, best, axis=1), axis=1)
        return cls(places, sums)

    def drawn(self, items: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
        """`count` for each of `items` that has any, the more like the more often."""
        items = items[self.sums[items, -1] > 0]
        at = random.random((len(items), count, 1)) * self.sums[items, -1][:, None, None]
        place = (self.sums[items][:, None, :] <= at).sum(-1).clip(max=self.places.shape[1] - 1)
        return np.take_along_axis(self.places[items], place, axis=1).ravel()

    def expected(self, chances: np.ndarray) -> np.ndarray:
        """How often each is drawn [C] for one item that comes with `chances` [C]."""
        shares = np.diff(self.sums, axis=1, prepend=0.0) / np.maximum(self.sums[:, -1:], 1e-9)
        return np.bincount(self.places.ravel(), (shares * chances[:, None]).ravel(), len(chances))


class TitleSampler:
    """What a step of one process reads beside its queries. Draws follow torch's seed, which is that of the step."""

    def __init__(self, titles: Titles, targets: np.ndarray, batch: int, model: RankerModel) -> None:
        """`targets`: the places of what was wanted, in all examples; `batch` examples a step; `model`: its items' popularity."""
        assert isinstance(model.items, TitleHead)
        self.titles = titles
        self._alike = Alike.of(titles, np.unique(targets))
        popularity = model.items.bias.double().cpu()
        chances = popularity.exp().numpy()
        often = batch * (chances + HARD * self._alike.expected(chances))
        # In a batch at least once, if draws are independent (Poisson).
        self._correction = (popularity - torch.from_numpy(np.log(-np.expm1(-often)))).float()

    def logits(self, model: RankerModel, batch: Batch) -> tuple[Tensor, Batch]:
        """The logits [B, K] of the titles that are read, corrected, and the batch with its targets' places among these.

        A target without title is left out; a query that is left without any weighs nothing.
        """
        head, device = model.items, batch.input_ids.device
        assert isinstance(head, TitleHead)
        row, item = (each.cpu().numpy() for each in batch.labels)
        kept = self.titles.titled[item]
        row, item = row[kept], item[kept]
        read = self._read(item, np.random.default_rng(int(torch.randint(2**62, ()))))
        ids, mask = (each.to(device) for each in self.titles.padded(read))
        queries = head.vector(model.pooled(batch.input_ids, batch.attention_mask))
        titles = head.vector(model.pooled(ids, mask))
        logits = head.likeness(queries, titles) + self._correction[torch.from_numpy(read)].to(device)
        asks = np.zeros(len(batch.weights), np.float32)
        asks[row] = 1.0
        order = np.argsort(read)
        places = order[np.searchsorted(read, item, sorter=order)]
        return logits, replace(
            batch,
            labels=torch.from_numpy(np.stack([row, places])).to(device),
            shares=batch.shares[torch.from_numpy(kept).to(device)],
            weights=batch.weights * torch.from_numpy(asks).to(device),
        )

    def _read(self, wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Places of the titles: those wanted and those like them, each once, like lengths together; never none."""
        read = np.unique(np.concatenate([wanted, self._alike.drawn(wanted, HARD, random)]))
        read = read[self.titles.titled[read]]
        if not len(read):
            read = np.flatnonzero(self.titles.titled)[:1]
        return read[np.argsort(self.titles.lengths[read], kind="stable")]


def _weighed(titles: Titles) -> sparse.csr_matrix:
    """Rows of length 1 [C, tokens]: which tokens a title holds, by rarity; none where there is no title."""
    count = len(titles)
    shape = (count, int(titles.tokens.max()) + 1)
    found = sparse.csr_matrix((np.ones(len(titles.tokens), np.float32), titles.tokens, titles.starts), shape)
    found.sum_duplicates()
    found.data[:] = 1.0
    holders = np.asarray(found.sum(axis=0)).ravel()
    rarity = np.where(
        (holders > 0) & (holders <= _MOST_HOLD), np.log(count / np.maximum(holders, 1)), 0.0
    ).astype(np.float32)
    found = sparse.diags(titles.titled.astype(np.float32)) @ found @ sparse.diags(rarity)
    length = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found = sparse.diags(1.0 / np.maximum(length, 1e-6)) @ found
    found = found.tocsr().astype(np.float32)
    found.eliminate_zeros()
    return found
