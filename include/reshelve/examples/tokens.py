"""Tokenise once: the base model's own tokenizer, truncated to the ranker's length, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Encoding, Tokenizer

_BATCH = 1000
HISTORY_SEPARATOR = " ; "


def load_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """The tokenizer in `tokenizer.json`; special tokens count towards `max_length`.

    A pair loses tokens from its longer side first. A special token typed by a customer stays text, as it does in the
    packaged graph.
    """
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Iterable[str | tuple[str, str]]) -> Iterator[Encoding]:
    """The encodings in order, made in batches."""
    iterator = iter(texts)
    for batch in iter(lambda: list(islice(iterator, _BATCH)), []):
        yield from tokenizer.encode_batch(batch)
