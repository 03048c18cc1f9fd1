"""Another catalogue for a search version that is trained: its tables, its titles' vectors, and its items' numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from reshelve.examples.changed_catalogue import CatalogueChange
from reshelve.export.candidate import read_compression
from reshelve.export.precisions.int8 import FILE as QUANTIZED
from reshelve.features.retitled import retitled
from reshelve.features.tables import SearchTables
from reshelve.kind import Refresh
from reshelve.model.int8 import QuantizedModel
from reshelve.model.recatalogued import quantized_with_items, with_items
from reshelve.model.trained import Array, TrainedModel

TitleReader = Callable[[Path, Sequence[str]], Array]  # a train stage's directory and titles → their vectors


class SearchRefresh(Refresh):
    """Blend, encoder and tokenizer stay as they are."""

    def write(
        self,
        before: Mapping[str, Path],
        after: Mapping[str, Path],
        change: CatalogueChange,
        read: TitleReader,
    ) -> None:
        for name in before:
            _copy(before[name], after[name])
        tables = retitled(SearchTables.read(before["blend"]), change.were, change.read)
        tables.write(after["blend"])
        model = TrainedModel.load(before["train"])
        reads_titles = model.document.vector_size is not None
        vectors = _vectors(model, before["train"], change, read) if reads_titles else None
        with_items(model, change.were, vectors).save(after["train"])
        shipped = after["compress"]
        if read_compression(before["compress"]).reshaped:
            with_items(TrainedModel.load(before["compress"]), change.were, vectors).save(shipped)
        if (before["compress"] / QUANTIZED).is_file():
            quantized = QuantizedModel.load(before["compress"] / QUANTIZED)
            quantized_with_items(quantized, change.were).save(shipped / QUANTIZED)

    def remembered(self, stages: Mapping[str, Path], most: int) -> list[str]:
        tables = SearchTables.read(stages["blend"])
        rows = np.repeat(np.arange(len(tables.keys)), np.diff(tables.chosen.starts))
        asked = np.bincount(rows, tables.chosen.weights[:, 0], len(tables.keys))
        return [tables.keys[place] for place in np.argsort(-asked, kind="stable")[:most]]


def _copy(before: Path, after: Path) -> None:
    for path in before.iterdir():
        if path.is_file():
            shutil.copyfile(path, after / path.name)


def _vectors(model: TrainedModel, train: Path, change: CatalogueChange, read: TitleReader) -> Array:
    """Titles are read by the version's own encoder, as it was trained, and only those that it has not read."""
    found = model["items.vectors"][change.were]
    unread = np.flatnonzero(change.new | change.retitled)
    if len(unread):
        found[unread] = read(train, [change.read[place] for place in unread])
    return np.ascontiguousarray(found)


FACET = SearchRefresh()
