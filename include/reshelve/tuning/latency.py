"""The latency that a trial's model will have when it is served: measured on the compressed model, once per shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reshelve.lineage import Run
from reshelve.logs import logger
from reshelve.rankers import Ranker
from reshelve.tuning.form import SERVED


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
    from reshelve.packaging.batches import example_rows
    from reshelve.packaging.trained import ModelDocument, TrainedModel
    from reshelve.training.form import ModelForm, base_architecture
    from reshelve.training.launch import checked_base
    from reshelve.training.model import RankerModel

    model = ranker.model
    base = checked_base(ranker, examples, run).path
    items = pq.read_metadata(examples / "catalogue.parquet").num_rows
    form = ModelForm(
        kind=ranker.kind,
        pooling=model.pooling,
        max_length=model.max_length,
        architecture=base_architecture(base, model.max_length, model.layers),
        items=items if ranker.kind.over_catalogue else None,
        towers=model.towers,
    )
    tensors = {name: tensor.numpy() for name, tensor in RankerModel(form).state_dict().items()}
    trained = TrainedModel(ModelDocument.model_validate(form.model_dump(mode="json")), tensors)
    rows = example_rows(examples / "train.parquet", 32)
    return request_milliseconds(trained, rows, ranker.compression.steps)
