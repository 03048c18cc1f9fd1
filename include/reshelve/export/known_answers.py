"""Answers that the packaging host got from the finished SavedModel: a server has to give the same before it serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from reshelve.export.warmup import Request

FILE = Path("assets.extra", "known_answers.json")
KNOWN = 8


def write_known_answers(version: Path, served: Any, inputs: Request) -> None:
    """Write `{signature, inputs, score}` of one request; the manifest's digest of the file covers the answers."""
    tensors = {name: tf.constant(texts) for name, texts in inputs.items()}
    score = served.signatures["serving_default"](**tensors)["score"].numpy()
    document = {"signature": "serving_default", "inputs": inputs, "score": score.tolist()}
    (version / FILE).write_text(json.dumps(document, sort_keys=True))
