"""The titles' vectors of a version as a file, for a search engine that is to find what the version then ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from reshelve.examples.formats import write_batches
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.model.trained import TrainedModel

FILE = Path("assets.extra", "vectors.parquet")
VECTORS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),  # of length 1
        pa.field("model", pa.string(), nullable=False),  # sha256 of the model.safetensors that made it
    ]
)
SHORTEST = 1e-6  # that a vector is divided by, as TensorFlow has it
_ROWS = 4096  # written at once


def write_vectors(version: Path, model: TrainedModel, digest: str, catalogue: PackagedCatalogue) -> int:
    """Write those of all titled items in index order, `digest` being that of the trained model; their number.

    Where items are not scored by their titles nothing is written, and it is 0.
    """
    if model.document.vector_size is None:
        return 0
    vectors = model["items.vectors"]
    places = np.flatnonzero(vectors.any(axis=1))
    size = model.document.index_size or vectors.shape[1]

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(places), _ROWS):
            chosen = places[start : start + _ROWS]
            cut = vectors[chosen, :size]
            if size < vectors.shape[1]:
                cut = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), SHORTEST)
            columns = [
                pa.array([catalogue.items[place] for place in chosen], pa.string()),
                pa.ListArray.from_arrays(
                    np.arange(len(chosen) + 1, dtype=np.int32) * size,
                    np.ascontiguousarray(cut).ravel(),
                ),
                pa.array([digest] * len(chosen), pa.string()),
            ]
            arrays = [column.cast(field.type) for column, field in zip(columns, VECTORS, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=VECTORS)

    return write_batches(version / FILE, VECTORS, batches())
