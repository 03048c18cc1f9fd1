"""Whether a base model can be packaged, asked of its encoder before anything is trained.

What the packaged graph does not know would be served wrong without a word, or be found out when the night's training is
over.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from reshelve.config.compression import Distil
from reshelve.config.ranker import Ranker
from reshelve.errors import MisfitError
from reshelve.model.base_home import BASE
from reshelve.model.encoders.base import Texts
from reshelve.model.ranker_form import base_architecture, base_config, encoder_of


def check_base(ranker: Ranker, home: Path, *, two_texts: bool) -> None:
    """Raise MisfitError with the ranker's key and what of the base in `home` does not fit.

    `two_texts`: whether the ranker's kind reads two at once.
    """
    encoder = encoder_of(base_config(home))
    whole = base_architecture(home, ranker.model.max_length)
    for problem in problems(home, texts_of(ranker, two_texts)):
        said = f"{ranker.model.base} cannot be packaged: {problem}"
        raise MisfitError(BASE, said, f"supported: {encoder.said}; see docs/how-to/add-a-ranker.md")
    _check_layers(ranker, whole.num_hidden_layers)


def texts_of(ranker: Ranker, two_texts: bool) -> Texts:
    """What the ranker's encoder reads at once; `two_texts` as in `check_base`."""
    if not two_texts:
        return Texts.ONE
    return Texts.APART if ranker.model.towers else Texts.TOGETHER


def problems(home: Path, texts: Texts) -> tuple[str, ...]:
    """What the encoder of the base in `home` says of it. Raises MisfitError where its tokenizer.json is none."""
    stamps = [(home / name).stat() for name in ("config.json", "tokenizer.json")]
    return _problems(home, texts, tuple((found.st_mtime_ns, found.st_size) for found in stamps))


@lru_cache(maxsize=32)  # DAG files read the same few bases for ranker after ranker
def _problems(home: Path, texts: Texts, stamps: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    config, path = base_config(home), home / "tokenizer.json"
    try:
        return encoder_of(config).supports(config, json.loads(path.read_text(encoding="utf-8")), texts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{path}: no tokenizer.json that can be read"
        raise MisfitError(BASE, said, f"{type(error).__name__}: {error}") from error


def _check_layers(ranker: Ranker, layers: int) -> None:
    """Those that the ranker file names, which its form cannot know."""
    kept = ranker.model.layers
    if kept is not None and kept > layers:
        raise MisfitError("model.layers", f"{kept} is more than the base model's {layers} layers")
    tuned = ranker.tuning.space.get("model.layers")
    if tuned and max(map(float, tuned.values)) > layers:
        raise MisfitError("tuning.space", f"model.layers: expected at most the base model's {layers} layers")
    for step in ranker.compression.steps:
        if isinstance(step, Distil) and step.layers >= (kept or layers):
            said = f"distil to {step.layers} layers: expected fewer than the model's {kept or layers}"
            raise MisfitError("compression.steps", said)
