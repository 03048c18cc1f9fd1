"""Padded model inputs outside the graph: from tokenised examples, or from text by Hugging Face's tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from reshelve.export.tokenizer import TokenBatch

Encoded = tuple[Sequence[int], Sequence[int] | None]


def padded(rows: Sequence[Encoded], pad_id: int = 0) -> TokenBatch:
    """(ids, token types or None) of several texts as one batch, `pad_id` after the shorter ones."""
    lengths = np.array([len(ids) for ids, _ in rows], np.int32)
    ids = np.full((len(rows), int(lengths.max())), pad_id, np.int32)
    types = None if rows[0][1] is None else np.zeros_like(ids)
    for place, (row, kinds) in enumerate(rows):
        ids[place, : len(row)] = row
        if types is not None and kinds is not None:
            types[place, : len(row)] = kinds
    return TokenBatch(ids, lengths, types)


def batches(rows: Sequence[Encoded], size: int = 32, *, pad_id: int = 0) -> Iterator[TokenBatch]:
    """The rows in batches of `size`, in order."""
    for start in range(0, len(rows), size):
        yield padded(rows[start : start + size], pad_id)


def example_rows(path: Path, limit: int) -> list[Encoded]:
    """At most `limit` tokenised examples, spread evenly over `train.parquet` or `validation.parquet`."""
    table = pq.read_table(
        path, columns=[n for n in ("input_ids", "token_type_ids") if n in pq.read_schema(path).names]
    )
    step = max(1, table.num_rows // limit)
    rows = table.take(list(range(0, table.num_rows, step))[:limit]).to_pylist()
    return [(row["input_ids"], row.get("token_type_ids")) for row in rows]


def text_rows(path: Path, max_length: int, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Encoded]:
    """Texts or pairs as the graph's tokenizer has them: special tokens typed by a customer stay text."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.encode_special_tokens = True
    paired = bool(texts) and isinstance(texts[0], tuple)
    return [(e.ids, e.type_ids if paired else None) for e in tokenizer.encode_batch(list(texts))]
