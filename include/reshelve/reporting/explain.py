"""Why the transformer ranked as it did: what each word of a text adds to a score.

Integrated gradients (Sundararajan, Taly and Yan, 2017), by captum, from a text of padding to the text itself: the words'
shares add up to the difference between the two scores. Explained is the float model that was trained; features beside the
texts, and a search ranker's memory, are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from captum.attr import LayerIntegratedGradients
from tokenizers import Tokenizer
from torch import Tensor

from reshelve.examples.common_queries import common_queries
from reshelve.kind import Explanation, Prediction
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.training.batches import Batch, TokenisedExamples, read_examples
from reshelve.training.model import RankerModel

__all__ = ["Explained", "Word", "explain"]

EACH = 3  # examples that came true, and as many that did not
STEPS = 32  # of the integral: more changes the second decimal
_LOOKED_AT = 256  # validation examples among which are chosen
_SPECIAL = ("[CLS]", "[SEP]", "[PAD]")


@dataclass(frozen=True)
class Word:
    """A word of the text and what it adds to the score; `part` is 1 for the right text of a pair."""

    text: str
    adds: float
    part: int = 0


@dataclass(frozen=True)
class Explained:
    """One prediction. `chance` is the score read as a probability; `left_over` what the words do not account for."""

    answer: str
    came_true: bool
    chance: float
    words: tuple[Word, ...]
    left_over: float


def explain(run: Run) -> list[Explained]:
    """Predictions for validation examples: the surest that came true, and the surest that did not.

    Empty where the night's model is not kept, or where no text may be shown.
    """
    train, examples = run.stage("train").files(), run.stage("examples").files()
    if not (train / "model.json").is_file() or not (examples / "validation.parquet").is_file():
        return []
    model = RankerModel.load(train)
    tokenizer = Tokenizer.from_file(str(train / "tokenizer.json"))
    known = read_examples(examples / "validation.parquet", run.ranker.kind, model.pad_id)
    shown = _may_be_shown(run, known, _looked_at(known), examples, tokenizer)
    if not len(shown):
        return []
    how = kind_of(run.ranker.kind).explanation
    titles = pq.read_table(examples / "catalogue.parquet", columns=["title"])["title"].to_pylist()
    return [
        _explained(model, tokenizer, known.batch(np.array([each.place])), each, titles, how)
        for each in _chosen(model, known, shown, how)
    ]


def _looked_at(known: TokenisedExamples) -> np.ndarray:
    return np.unique(np.linspace(0, len(known) - 1, min(_LOOKED_AT, len(known))).astype(np.int64))


def _may_be_shown(
    run: Run, known: TokenisedExamples, places: np.ndarray, examples: Path, tokenizer: Tokenizer
) -> np.ndarray:
    """Those of `places` whose text says nothing of one person: titles, judged queries, and what several have asked."""
    if kind_of(run.ranker.kind).may_show_text(run.ranker):
        return places
    shown = common_queries(examples, run.ranker.remember)
    common = {tuple(encoding.ids) for encoding in tokenizer.encode_batch(shown)}
    return np.array([place for place in places if _left_ids(known, place) in common], dtype=np.int64)


def _left_ids(known: TokenisedExamples, place: int) -> tuple[int, ...]:
    """The token ids of a query, with the special tokens around it."""
    start, length = known.starts[place], known.lengths[place]
    ids = known.tokens[start : start + length]
    if known.types is not None:
        ids = ids[known.types[start : start + length] == 0]
    return tuple(int(token) for token in ids)


@torch.no_grad()
def _chosen(
    model: RankerModel, known: TokenisedExamples, shown: np.ndarray, how: Explanation
) -> list[Prediction]:
    """By certainty, first those that came true; every answer and every question once."""
    found: list[Prediction] = []
    for places in np.array_split(shown, max(1, len(shown) // 64)):
        found += how.predictions(model(*known.batch(places).inputs).float(), known, places)
    found.sort(key=lambda each: (-each.chance, each.place))
    chosen: list[Prediction] = []
    seen: set[int] = set()
    for wanted_true in (True, False):
        taken = 0
        for each in found:
            if each.came_true is wanted_true and each.about not in seen and taken < EACH:
                seen.add(each.about)
                chosen.append(each)
                taken += 1
    return chosen


def _explained(
    model: RankerModel,
    tokenizer: Tokenizer,
    batch: Batch,
    predicted: Prediction,
    titles: Sequence[str],
    how: Explanation,
) -> Explained:
    if model.form.towers:
        adds, left_over = _of_towers(model, batch)
    else:
        score = _Score(model, batch, how)
        adds, left_over = _integrated(model, score, batch.input_ids, how.target(predicted.answer))
    words = tuple(_words(tokenizer, batch.input_ids[0], batch.token_type_ids[0], adds))
    right_text = " ".join(word.text for word in words if word.part)
    named = how.named(predicted.answer, titles, right_text)
    return Explained(named, predicted.came_true, predicted.chance, words, left_over)


class _Score(torch.nn.Module):
    """Token ids [B, T] of one example's copies → what is explained: [B], or [B, C] of the catalogue."""

    def __init__(self, model: RankerModel, batch: Batch, how: Explanation) -> None:
        super().__init__()
        self.model, self.batch, self.how = model, batch, how

    def forward(self, ids: Tensor) -> Tensor:
        _, mask, types, features = (each.expand(len(ids), *each.shape[1:]) for each in self.batch.inputs)
        return self.how.scores(self.model(ids, mask, types, features).float())


class _Tower(torch.nn.Module):
    """Token ids [B, T] of one text → logits [B], the other text and the features as they are."""

    def __init__(self, model: RankerModel, other: Tensor, features: Tensor) -> None:
        super().__init__()
        self.model, self.other, self.features = model, other, features

    def forward(self, ids: Tensor) -> Tensor:
        vector = self.model.pooled(ids, torch.ones_like(ids)).float()
        columns = [F.cosine_similarity(vector, self.other.expand_as(vector), dim=1)[:, None]]
        if self.model.form.features:
            columns.insert(0, self.features.expand(len(ids), -1))
        assert self.model.beside is not None
        return self.model.beside(torch.cat(columns, dim=1))


def _of_towers(model: RankerModel, batch: Batch) -> tuple[Tensor, float]:
    """Each text in its turn; what is left over is that of both."""
    ids, of_right = batch.input_ids, batch.token_type_ids[0].bool()
    left, right = ids[:, ~of_right], torch.cat([ids[:, :1], ids[:, of_right]], dim=1)
    with torch.no_grad():
        vectors = [model.pooled(text, torch.ones_like(text)).float() for text in (left, right)]
    of_left, missing = _integrated(model, _Tower(model, vectors[1], batch.features), left, None)
    of_the_right, more = _integrated(model, _Tower(model, vectors[0], batch.features), right, None)
    adds = torch.zeros(ids.shape[1])
    adds[~of_right], adds[of_right] = of_left, of_the_right[1:]
    return adds, missing + more


def _integrated(
    model: RankerModel, score: torch.nn.Module, ids: Tensor, target: int | None
) -> tuple[Tensor, float]:
    """What each token [T] adds to the score of `ids` [1, T], and what the sum lacks."""
    special = torch.isin(
        ids, ids[:, [0, -1]]
    )  # the first and the last are special tokens, and so are their equals
    baseline = torch.where(special, ids, torch.full_like(ids, model.pad_id))
    method = LayerIntegratedGradients(score, model.encoder.embedded)
    found, delta = method.attribute(
        ids, baselines=baseline, target=target, n_steps=STEPS, return_convergence_delta=True
    )
    return found.sum(-1)[0].detach(), float(delta.abs().sum())


def _words(tokenizer: Tokenizer, ids: Tensor, types: Tensor, adds: Tensor) -> Iterator[Word]:
    """Pieces of words put together again, special tokens left out."""
    text, total, part = "", 0.0, 0
    for token, kind, share in zip(ids.tolist(), types.tolist(), adds.tolist(), strict=True):
        piece = tokenizer.id_to_token(token) or ""
        if piece in _SPECIAL:
            continue
        if piece.startswith("##"):
            text, total = text + piece.removeprefix("##"), total + share
            continue
        if text:
            yield Word(text, total, part)
        text, total, part = piece, share, int(kind)
    if text:
        yield Word(text, total, part)
