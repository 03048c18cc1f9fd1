"""The latency that a trial's model will have when it is served: measured on the compressed model, once per shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reshelve.config.ranker import Ranker
from reshelve.config.tuning import SERVED
from reshelve.features.columns import feature_columns
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.model.description import ModelForm
from reshelve.model.ranker_form import form_of


def latency_ms(run: Run, values: dict[str, Any]) -> float:
    """Milliseconds of a request's batch for a model of these values; measured where the run has not measured it yet.

    Before any trial of the wave starts, so that nothing of the run disturbs it.
    """
    shape = "-".join(f"{path}={values[path]}" for path in SERVED if path in values)
    key = f"{run.prefix}/tune-latency/{shape}.json"
    found = run.store.get_json(key)
    if found is None:
        with run.stage("examples").lock():
            examples = run.stage("examples").files()
        found = {"milliseconds": measure(run, run.ranker.with_values(values), examples)}
        run.store.put_json(key, found)
        logger(stage="tune").info("latency measured", shape=shape, **found)
    return float(found["milliseconds"])


def measure(run: Run, ranker: Ranker, examples: Path) -> float:
    """Build a model of the ranker's shape with weights drawn at random (they cost what trained ones do), compress, time."""
    from reshelve.compression.rounding import request_milliseconds
    from reshelve.export.batches import example_rows
    from reshelve.model.trained import TrainedModel
    from reshelve.training.launch import checked_base
    from reshelve.training.model import RankerModel

    form = measured_form(ranker, checked_base(ranker, examples, run).path, examples)
    tensors = {name: tensor.numpy() for name, tensor in RankerModel(form).state_dict().items()}
    trained = TrainedModel(form, tensors)
    rows = example_rows(examples / "train.parquet", 32)
    return request_milliseconds(trained, rows, ranker.compression.steps)


def measured_form(ranker: Ranker, base: Path, examples: Path) -> ModelForm:
    """What the ranker would train on that base and those examples."""
    catalogue = pq.read_metadata(examples / "catalogue.parquet").num_rows
    items = catalogue if kind_of(ranker.kind).scores_catalogue else None
    columns = feature_columns(ranker.examples.features)
    return form_of(base, ranker.kind, ranker.model, items=items, features=columns)
