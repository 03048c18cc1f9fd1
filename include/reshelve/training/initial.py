"""The ranker before training: on the pretrained base, or on what the champion had learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from reshelve.kind_registry import kind_of
from reshelve.model.ranker_form import form_of
from reshelve.training.batches import feature_matrix
from reshelve.training.model import RankerModel, log_popularity, rows_of_titles
from reshelve.training.spec import TrainingSpec
from reshelve.training.title_head import TitleHead


def build_model(spec: TrainingSpec, rank: int) -> RankerModel:
    """The ranker before training: on rank 0 with its first weights, elsewhere of the same shape."""
    catalogue = _catalogue(spec.examples) if kind_of(spec.kind).scores_catalogue else None
    if rank == 0 and spec.start is None:
        model = RankerModel.initialise(
            spec.base,
            kind=spec.kind,
            pooling=spec.model.pooling,
            max_length=spec.model.max_length,
            layers=spec.model.layers,
            titles=catalogue["title"] if catalogue else None,
            events=_counts(spec, catalogue) if catalogue else None,
            features=spec.features,
            towers=spec.model.towers,
            vector_size=spec.model.title_vector,
            index_size=spec.model.cut_vector,
            seed=spec.training.seed,
        )
        if model.beside is not None and spec.features:
            table = pq.read_table(spec.examples / "train.parquet", columns=["features"])
            model.beside.standardise(torch.from_numpy(feature_matrix(table)))
        return model
    items = len(catalogue["title"]) if catalogue else None
    model = RankerModel(form_of(spec.base, spec.kind, spec.model, items=items, features=spec.features))
    return model if rank or spec.start is None else continued(model, spec.start, spec.base, catalogue)


@torch.no_grad()
def continued(
    model: RankerModel, start: Path, base: Path, catalogue: dict[str, list[Any]] | None
) -> RankerModel:
    """`model` with the weights in `start`, an earlier night's, which the train stage has found to fit.

    With titles only their popularity is new: vectors are worked out before they are read. Else an item that both catalogues
    have keeps its row, and of its bias what lay above its popularity then; it gets today's popularity. A new item starts
    from its title, with the bias of its popularity.
    """
    model.eval()
    earlier = load_file(start / "model.safetensors")
    if catalogue is not None and isinstance(model.items, TitleHead):
        head = model.items
        earlier |= {"items.vectors": head.vectors, "items.bias": log_popularity(catalogue["events_train"])}
    elif catalogue is not None:
        earlier |= _items(model, earlier, _catalogue(start), base, catalogue)
    model.load_state_dict(earlier)
    return model


def _items(
    model: RankerModel,
    earlier: dict[str, Tensor],
    before: dict[str, list[Any]],
    base: Path,
    now: dict[str, list[Any]],
) -> dict[str, Tensor]:
    assert isinstance(model.items, torch.nn.Linear)
    places = {item: place for place, item in enumerate(before["item_id"])}
    kept = [place for place, item in enumerate(now["item_id"]) if item in places]
    fresh = [place for place, item in enumerate(now["item_id"]) if item not in places]
    were = [places[now["item_id"][place]] for place in kept]
    above = earlier["items.bias"] - log_popularity(before["events"])
    weight, bias = model.items.weight.detach().clone(), log_popularity(now["events"])
    weight[kept] = earlier["items.weight"][were]
    # What all items have in common changes no softmax; the new ones get it too, to stand level with the others.
    bias += above[were].mean() if were else 0.0
    bias[kept] += above[were] - above[were].mean() if were else 0.0
    if fresh:
        encoder = {name: value for name, value in earlier.items() if name.startswith("encoder.")}
        model.load_state_dict(encoder, strict=False)
        weight[fresh] = rows_of_titles(model, base, [now["title"][place] for place in fresh])
    return {"items.weight": weight, "items.bias": bias}


def _counts(spec: TrainingSpec, catalogue: dict[str, list[Any]]) -> list[int]:
    """What the bias begins with. That of titles is never trained: it must know nothing of the validation days."""
    return catalogue["events" if spec.model.title_vector is None else "events_train"]


def _catalogue(directory: Path) -> dict[str, list[Any]]:
    """The columns of `catalogue.parquet`, in the order of the softmax; an item without title is called by its id."""
    found: dict[str, list[Any]] = pq.read_table(directory / "catalogue.parquet").sort_by("index").to_pydict()
    found["title"] = [title or item for title, item in zip(found["title"], found["item_id"], strict=True)]
    return found
