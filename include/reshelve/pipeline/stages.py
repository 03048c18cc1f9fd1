"""The stages of a night, each declared once: what it needs, what it reads, and the code that it runs.

`reads` are keys of the ranker file; `code` is what `tests/unit/pipeline/test_stages.py` proves to be all that a stage's work
imports, but for CARRIERS, and `facets` all that it asks of the ranker's kind. To add a stage is to add it here, its verb in `verbs/night.py` and its task in `dags/retrain.py`.
"""

from __future__ import annotations

from typing import Any

from reshelve import kind_registry
from reshelve.clickstream.events import catalogue_key
from reshelve.clickstream.forgotten import read_forgotten
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.examples.partitions import choose_partitions
from reshelve.lineage import results
from reshelve.lineage.run import Run
from reshelve.lineage.stage import Stage
from reshelve.model.base import resolve_base
from reshelve.model.base_home import home_of
from reshelve.model.fitting import check_base
from reshelve.model.kept_base import recorded_base
from reshelve.training.warm_start import champion_asked
from reshelve.tuning.past_nights import learned_from

CARRIERS = (
    "charts", "config", "deployments", "errors", "files", "guard", "kept", "kind", "kind_registry", "lineage", "logs",
    "machine_memory", "names", "pipeline", "processes", "progress", "result_text", "settings", "store",
)  # fmt: skip
"""Code that carries what stages make and read, and makes nothing of it: in no identity. The ranker file's values are, by
section; who is champion is, where a stage asks."""


def _partitions(run: Run, fetch: bool) -> dict[str, Any] | None:
    """The verdicts of the window's days, the product list and the base: what examples are made of."""
    uri = run.ranker.model.base
    try:
        split = choose_partitions(run)
        if not fetch and home_of(uri) is None:
            return None
        base = recorded_base(uri, run.base, run.store) if run.base else resolve_base(uri, run.store)
        check_base(run.ranker, base.path, two_texts=kind_registry.kind_of(run.ranker.kind).two_texts)
    except (DataError, ConfigurationError):
        return None  # the stage says why
    return {
        "verdicts": {str(day): split.digests[day] for day in split.days},
        "products": run.store.etag(catalogue_key(run.ranker.data.source)),
        "base": base.files,
        "forgotten": read_forgotten(run.store, run.ranker.data.source).generation,
    }


def _tuning(run: Run, fetch: bool) -> dict[str, Any]:
    return {"start": champion_asked(run), "past nights": learned_from(run)}


def _start(run: Run, fetch: bool) -> dict[str, Any]:
    return {"start": champion_asked(run)}


def _champion(run: Run, fetch: bool) -> dict[str, Any]:
    pointer = read_pointer(run.store, run.ranker.name)
    return {"champion": pointer.stable if pointer else None}


STAGES = (
    Stage(
        name="examples", result=results.ExamplesResult, needs=(), found=_partitions,
        reads=("data", "examples", "model.base", "model.max_length", "training.seed", "gates.max_queries", "compression.steps", "release.candidates", "remember"),
        code=(
            "clickstream", "examples", "features", "model", "notation", "raw.parsed", "raw.statements", "statistics.interval",
            "statistics.normal", "statistics.order", "statistics.rates", "statistics.stability", "validation",
        ),
        work=("examples.build",), facets=("examples",),
    ),
    Stage(
        name="tune", result=results.TuneResult, needs=("examples",), found=_tuning,
        reads=("tuning", "training", "model", "data.split", "examples.features", "compression"),
        # Of packaging and judging it runs a few files, to time a trial: what else changes there tunes nothing again.
        code=(
            "compression.calibration", "compression.context", "compression.measure", "compression.rounding", "config.tuning",
            "examples.tokens", "export.batches", "export.candidate", "export.encoders", "export.graph", "export.layers",
            "export.precisions", "export.titles", "export.tokenizer", "features", "model", "statistics.correlation", "statistics.interval", "statistics.normal",
            "training", "tuning",
        ),
        work=("tuning.tune", "training.worker", "training.horovodrun"), facets=("learning", "requests"),
    ),
    Stage(
        name="train", result=results.TrainResult, needs=("examples", "tune"), found=_start,
        reads=("training", "model", "data.split", "examples.features"),
        code=("examples.tokens", "features", "model", "statistics.interval", "statistics.normal", "training"),
        work=("training.launch", "training.worker", "training.horovodrun"), facets=("learning",),
    ),
    Stage(
        name="blend", result=results.BlendResult, needs=("examples", "train"),
        reads=("data.events", "release.candidates", "release.top", "remember", "training.seed"),
        code=(
            "clickstream", "examples", "export", "features", "kinds.search.blend_stage", "kinds.search.past_searches", "model",
            "statistics.bootstrap", "statistics.interval", "statistics.noisy_counts", "statistics.order", "training",
        ),
        work=("kinds.search.blend_stage",),
    ),
    Stage(
        name="compress", result=results.CompressResult, needs=("examples", "train", "blend"),
        reads=(
            "compression", "data", "examples", "gates.max_queries", "gates.metric", "model", "release.candidates", "release.max_rows", "release.top",
            "remember", "training",
        ),
        code=(
            "client", "clickstream", "compression", "config.compression", "evaluation", "examples", "export", "features", "model",
            "modelserver", "notation", "protocol", "statistics", "training",
        ),
        work=("compression.compress", "training.worker", "training.horovodrun", "modelserver.model_server"),
        facets=("evaluation", "export", "learning", "requests"),
    ),
    Stage(
        name="package", result=results.PackageResult, needs=("examples", "train", "blend", "compress"),
        reads=("data.events", "examples", "release.candidates", "release.max_rows", "release.top", "remember", "training.seed"),
        code=(
            "clickstream", "examples", "export", "features", "model", "protocol.allowed_operations", "protocol.graph_check",
            "protocol.messages", "protocol.saved_model_check", "statistics.bootstrap", "statistics.correlation", "statistics.interval",
            "statistics.noisy_counts", "statistics.order", "training",
        ),
        work=("export.package",), facets=("export", "requests"),
    ),
    Stage(
        name="gate", result=results.GateResult, needs=("examples", "package"), found=_champion,
        reads=("gates", "compression.steps", "data.events", "examples", "release.top", "remember", "training.seed"),
        code=("clickstream", "client", "evaluation", "examples", "modelserver", "notation", "protocol", "statistics"),
        work=("evaluation.gate", "modelserver.model_server"), facets=("evaluation",),
    ),
    Stage(
        name="publish", result=results.PublishResult, needs=("examples", "train", "package", "gate"), reads=(), code=(),
        work=("pipeline.publish",),
        own="a version names the run that it is of",
    ),
)  # fmt: skip
"""In the order of the night."""

NAMES = tuple(stage.name for stage in STAGES)


def stages_of(ranker: Ranker) -> tuple[Stage, ...]:
    """Those of a ranker's night, as its kind has them."""
    return tuple(stage_of(name) for name in kind_registry.stages_of(ranker.kind))


def stage_of(name: str) -> Stage:
    """The stage of that name; one that is not declared, a new kind's own, is never taken over."""
    undeclared = Stage(
        name, results.StageResult, (), (), (), (), own="it is not declared in pipeline/stages.py"
    )
    return next((stage for stage in STAGES if stage.name == name), undeclared)
