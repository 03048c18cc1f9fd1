"""The package stage: the SavedModel that takes strings, checked before it exists.

`version/` appears only after the float graph equals torch, what is on disk answers like what was built,
and nothing but stock TensorFlow operations is in it.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from reshelve.errors import DataError
from reshelve.export.batches import padded, text_rows
from reshelve.export.candidate import Candidate
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.heldout import HeldOutQuestion, questions_to_keep, read_questions
from reshelve.export.known_answers import KNOWN, write_known_answers
from reshelve.export.layers import FloatLayers
from reshelve.export.module import RankerModule
from reshelve.export.operations import check_operations
from reshelve.export.tokenizer_check import check_tokenizer
from reshelve.export.vectors import write_vectors
from reshelve.export.version import VersionBuilder, size_of
from reshelve.export.warmup import BATCHES, Request, write_warmup
from reshelve.features.features import PairFeatures
from reshelve.files import digest_of_file, write_whole
from reshelve.kind import Requests
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.model.trained import Array, TrainedModel
from reshelve.store.manifest import ABOUT

LARGEST_DIFFERENCE = 1e-4
_QUESTIONS = 64
_ROUNDS = 9


def package(run: Run) -> dict[str, Any]:
    """Build `version/` and `package.json`. Raises DataError where a check fails."""
    builder = VersionBuilder(run)
    questions = read_questions(builder.examples, builder.catalogue, _QUESTIONS)
    kept = questions_to_keep(run, builder.examples, builder.catalogue, questions)
    return build_version(builder, questions, kept)


def build_version(
    builder: VersionBuilder, questions: list[HeldOutQuestion], kept: list[HeldOutQuestion]
) -> dict[str, Any]:
    """The same of any run's model: `questions` check and time it, `kept` travel with it. Raises DataError where a check fails."""
    log, run = logger(stage="package"), builder.run
    stage = run.stage("package").directory
    train, catalogue = builder.train, builder.catalogue
    model = TrainedModel.load(train)
    _check_fit(model, catalogue)
    kind = kind_of(model.document.kind)
    request = kind.requests.of_questions

    module = builder.module(model, FloatLayers(model))
    check_tokenizer(module.tokenizer, train / "tokenizer.json", pairs=kind.two_texts)
    probe = request(questions, 16)
    difference = check_against_torch(module, train, catalogue, probe)
    log.info("equals torch", max_logit_difference=difference)
    shipped = Candidate.load(run.stage("compress").files(), train)
    if not shipped.as_trained:
        module = builder.module(shipped.model, shipped.layers())

    log.info("saving", precision=shipped.precision.name)
    building = stage / ".version"
    shutil.rmtree(building, ignore_errors=True)
    builder.write(module, building)
    encoder = _titles(run, building, model, catalogue)
    write_warmup(building, run.ranker.name, warmup_requests(kind.requests, kept))
    top = run.ranker.release.top
    about = {
        "ranker": run.ranker.name, "kind": kind.name, "precision": shipped.precision.name,
        "top": min(top, len(catalogue.items)), "items": len(catalogue.items), **encoder,
    }  # fmt: skip
    (building / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
    check_operations(building)
    log.info("saved; loading it again")
    served = tf.saved_model.load(str(building))
    _check_reloaded(served, module, probe)
    write_known_answers(building, served, request(kept, KNOWN))
    log.info("answers like what was saved; taking its time")
    result = {
        "bytes": size_of(building),
        "max_logit_difference": difference,
        "latency_ms": _latency(served, kind.requests, questions),
        "precision": shipped.precision.name,
        "candidates": module.candidates_found(request(questions, len(questions))),
        "signature": _described(module.signatures),
    }
    shutil.rmtree(stage / "version", ignore_errors=True)
    building.rename(stage / "version")
    write_whole(stage / "package.json", json.dumps({**about, **result}, indent=1, sort_keys=True))
    return result


def _titles(run: Run, building: Path, model: TrainedModel, catalogue: PackagedCatalogue) -> dict[str, str]:
    """The titles' vectors beside the version, and in the store, for whoever reads titles by the same encoder; its digest.

    Empty where items are not scored by their titles.
    """
    train = run.stage("train").files()
    if not write_vectors(building, model, digest_of_file(train / "model.safetensors"), catalogue):
        return {}
    from reshelve.training.title_cache import TitleCache

    vectors, cache = model["items.vectors"], TitleCache(run.store, run.ranker.name, train)
    places = np.flatnonzero(vectors.any(axis=1))
    cache.keep([catalogue.titles[place] for place in places], vectors[places])
    return {"encoder": cache.encoder}


def warmup_requests(requests: Requests, questions: list[HeldOutQuestion]) -> Iterator[tuple[str, Request]]:
    """Both signatures at the batches that requests have."""
    for signature in ("serving_default", "logits"):
        for place, size in enumerate(BATCHES):
            yield signature, requests.of_questions(questions, size, place)


def check_against_torch(
    module: RankerModule, train: Path, catalogue: PackagedCatalogue, inputs: Request
) -> float:
    """The largest difference of the float graph's logits to torch's, on real text, tokenizer included.

    Raises DataError where it is more than LARGEST_DIFFERENCE.
    """
    found = _answer(module.trained, inputs)
    difference = float(np.abs(found - torch_logits(train, catalogue, inputs, module.features)).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise DataError(
            f"the packaged graph differs from the trained model by {difference:.2g}",
            f"expected logits within {LARGEST_DIFFERENCE:g} of torch's on held-out text",
        )
    return difference


def torch_logits(
    train: Path, catalogue: PackagedCatalogue, inputs: Request, features: PairFeatures | None = None
) -> Array:
    """The trained model's own answer to a request."""
    import torch

    from reshelve.training.model import RankerModel

    trained = TrainedModel.load(train)
    document = trained.document
    beside = np.zeros((len(next(iter(inputs.values()))), 0), np.float32)
    texts = kind_of(document.kind).export.texts(inputs, catalogue)
    rows = text_rows(train / "tokenizer.json", document.max_length, texts)
    if features:
        titles = [text[1] for text in texts]
        beside = features.features(*map(tf.constant, (inputs["query"], inputs["item"], titles))).numpy()
    batch = padded(rows, trained.encoder.pad_id(document.architecture))
    present = np.arange(batch.ids.shape[1])[None, :] < batch.lengths[:, None]
    types = np.zeros_like(batch.ids) if batch.types is None else batch.types
    model = RankerModel.load(train).eval()
    with torch.no_grad():
        tensors = [torch.from_numpy(t.astype(np.int64)) for t in (batch.ids, present, types)]
        logits = model(*tensors, torch.from_numpy(beside))
    return np.asarray(logits.float().numpy())


def _check_fit(model: TrainedModel, catalogue: PackagedCatalogue) -> None:
    expected = model.document.items
    if expected is not None and expected != len(catalogue.items):
        raise DataError(f"the model scores {expected} items and the catalogue has {len(catalogue.items)}")


def _check_reloaded(served: Any, module: RankerModule, inputs: Request) -> None:
    tensors = {name: tf.constant(texts) for name, texts in inputs.items()}
    again = served.signatures["logits"](**tensors)["logits"].numpy()
    if not np.allclose(again, _answer(module.logits, inputs), rtol=1e-5, atol=1e-5):
        raise DataError("the SavedModel on disk answers differently from the graph it was made from")


def _answer(function: Any, inputs: Request) -> Array:
    tensors = {name: tf.constant(texts) for name, texts in inputs.items()}
    return np.asarray(function(**tensors)["logits"].numpy())


def _latency(served: Any, requests: Requests, questions: list[HeldOutQuestion]) -> dict[str, float]:
    """Median milliseconds of a request of each warm-up batch, in this process."""
    answer = served.signatures["serving_default"]
    found = {}
    for size in BATCHES:
        tensors = {name: tf.constant(texts) for name, texts in requests.of_questions(questions, size).items()}
        times = []
        for _ in range(_ROUNDS + 1):
            start = time.perf_counter()
            answer(**tensors)
            times.append((time.perf_counter() - start) * 1000)
        found[str(size)] = round(statistics.median(times[1:]), 2)
    return found


def _described(functions: dict[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """Per signature: inputs and outputs, as `string[?, 100]`."""

    def words(spec: tf.TensorSpec) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in spec.shape)
        return f"{spec.dtype.name}[{sizes}]"

    return {
        name: {
            "inputs": {key: words(spec) for key, spec in function.structured_input_signature[1].items()}
            or {spec.name: words(spec) for spec in function.structured_input_signature[0]},
            "outputs": {key: words(spec) for key, spec in function.structured_outputs.items()},
        }
        for name, function in functions.items()
    }
