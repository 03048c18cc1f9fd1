"""Vectors of titles, kept in the store under what they follow from: the encoder that read them, and the text.

`encoded/<ranker>/<encoder>/<part>.parquet`, each part written once by the night that trained the encoder. A product list that is
rolled without training has the same encoder, and encodes only titles that no part has. A part that is lost costs time, no answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from reshelve.files import digest_of_file
from reshelve.logs import logger
from reshelve.model.description import read_form
from reshelve.store.layout import encoded_of
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.training.title_tokens import vectors_of

PART = 65_536
"""Titles in one object: 32 MiB of vectors of 128."""

_KEY = 16  # bytes of a text's digest
_NOT_READ = ("items.vectors", "items.bias", "items.log_scale")  # what a title's vector does not follow from
_FORM = {"items", "index_size"}
_LENGTH = 1e-3  # how far from 1 a vector's length may be


def encoder_digest(train: Path) -> str:
    """64 hex digits over what a title's vector follows from: encoder, projection, form and tokenizer in a train stage's files."""
    form = read_form(train).model_dump(mode="json", exclude=_FORM)
    digest = hashlib.sha256(json.dumps(form, sort_keys=True).encode())
    digest.update(digest_of_file(train / "tokenizer.json").encode())
    with safe_open(train / "model.safetensors", "np") as weights:
        for name in sorted(set(weights.keys()) - set(_NOT_READ)):
            tensor = np.ascontiguousarray(weights.get_tensor(name))
            digest.update(f"{name}\0{tensor.dtype}\0{tensor.shape}\0".encode() + tensor.tobytes())
    return digest.hexdigest()


class TitleCache:
    """The vectors of one ranker's titles under the encoder in `train`, a train stage's files of a model with `head: titles`."""

    def __init__(self, store: ObjectStore, ranker: str, train: Path) -> None:
        self._store, self._train = store, train
        self._form = read_form(train)
        self.encoder = encoder_digest(train)
        self._folder = f"{encoded_of(ranker)}{self.encoder}/"

    def vectors(self, titles: Sequence[str]) -> np.ndarray:
        """Of each title [N, D] float32, of length 1; 0 of an empty one. What no part has is encoded here, and kept."""
        found = np.zeros((len(titles), self._size), np.float32)
        known = self._known({_key(title) for title in titles if title})
        missing = sorted({title for title in titles if title and _key(title) not in known})
        if missing:
            made = vectors_of(self._train, missing)
            self._write(missing, made)
            known |= dict(zip(map(_key, missing), made, strict=True))
        for place, title in enumerate(titles):
            if title:
                found[place] = known[_key(title)]
        logger().info("titles", titles=len(titles), encoded=len(missing), encoder=self.encoder[:12])
        return found

    def keep(self, titles: Sequence[str], vectors: np.ndarray) -> int:
        """Write those of `titles`, worked out already [N, D], that no part has; their number."""
        known = self._known({_key(title) for title in titles})
        fresh = {title: place for place, title in enumerate(titles) if _key(title) not in known}
        chosen = sorted(fresh)
        self._write(chosen, vectors[[fresh[title] for title in chosen]])
        return len(chosen)

    @property
    def _size(self) -> int:
        if self._form.vector_size is None:
            raise ValueError("items are not scored by their titles")
        return self._form.vector_size

    def _known(self, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors of these keys, as far as parts have them."""
        found: dict[bytes, np.ndarray] = {}
        for name, _ in self._store.list(self._folder):
            part = self._store.get(name)
            for key, vector in self._rows(name, part.body) if part else ():
                if key in wanted:
                    found[key] = vector.copy()  # a view would hold the whole part
        return found

    def _rows(self, name: str, body: bytes) -> Iterator[tuple[bytes, np.ndarray]]:
        """A part's keys and vectors; none of one that cannot be right, which is then made anew beside it."""
        try:
            table = pq.read_table(BytesIO(body), schema=self._schema)
            keys = table["key"].to_pylist()
            column = table["vector"].combine_chunks()
            vectors = column.values.to_numpy(zero_copy_only=False).reshape(len(keys), self._size)
        except (pa.ArrowException, OSError, ValueError) as error:
            logger().warning("a part of the titles' vectors cannot be read", object=name, error=str(error))
            return
        good = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= _LENGTH  # false of what is not finite, too
        if not good.all():
            logger().warning("vectors of titles are not of length 1", object=name, rows=int((~good).sum()))
        for key, vector, fits in zip(keys, vectors, good, strict=True):
            if fits:
                yield key, vector

    @property
    def _schema(self) -> pa.Schema:
        vector = pa.list_(pa.field("item", pa.float32(), nullable=False), self._size)
        fields = (("key", pa.binary(_KEY)), ("vector", vector))
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])

    def _write(self, titles: Sequence[str], vectors: np.ndarray) -> None:
        for start in range(0, len(titles), PART):
            keys = [_key(title) for title in titles[start : start + PART]]
            rows = np.ascontiguousarray(vectors[start : start + PART], np.float32)
            arrays = [
                pa.array(keys, self._schema.field("key").type),
                pa.FixedSizeListArray.from_arrays(
                    pa.array(rows.ravel()), type=self._schema.field("vector").type
                ),
            ]
            out = BytesIO()
            pq.write_table(pa.Table.from_arrays(arrays, schema=self._schema), out, compression="none")
            name = hashlib.sha256(b"".join(keys) + rows.tobytes()).hexdigest()[:32]
            with suppress(PreconditionFailedError):  # another process wrote the same
                self._store.put(f"{self._folder}{name}.parquet", out.getvalue(), if_absent=True)


def _key(title: str) -> bytes:
    return hashlib.sha256(title.encode()).digest()[:_KEY]
