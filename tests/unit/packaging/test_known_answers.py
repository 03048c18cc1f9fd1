"""The answers that travel with a version, through the real stage and the real server that has to give them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reshelve.compression.compress import compress
from reshelve.lineage import Run
from reshelve.packaging.known_answers import KNOWN
from reshelve.packaging.package import package
from reshelve.serving.catalogue import read_catalogue
from reshelve.serving.local_server import running_model_server
from reshelve.serving.probe import Questions, probe
from reshelve.serving.recorded import Known, known_answers, recorded_requests
from reshelve.store.versions import publish, require_manifest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pooling", "rows"),
    [pytest.param("next_item", "mean", KNOWN, id="next_item"), pytest.param("pair", "cls", KNOWN, id="pair")],
)
def test_a_server_has_to_give_the_answers_that_packaging_got(
    trained_run: Callable[..., Run], kind: str, pooling: str, rows: int
) -> None:
    run = trained_run(kind, pooling, {"compression.steps": ["int8"]})
    run.stage("compress").commit(compress(run))
    package(run)
    run.stage("gate").commit({"verdict": "promote", "reasons": ["measured"]})
    name, version = run.ranker.name, int(publish(run)["version"])
    manifest = require_manifest(run.store, name, version)
    known = known_answers(run.store, manifest)
    assert known is not None and known.score.shape[0] == rows
    asked = Questions(
        read_catalogue(run.store, name, version), recorded_requests(run.store, manifest), known
    )
    with running_model_server({name: run.stage("package").directory / "version"}) as addresses:
        good = probe(run.ranker, 1, addresses.grpc, asked)
        other = replace(asked, known=Known(known.request, known.score * 1.1 + 0.01))
        shorter = replace(asked, known=Known(known.request, known.score[:-1]))
        bad = [probe(run.ranker, 1, addresses.grpc, questions).problem for questions in (other, shorter)]
    assert good.problem is None
    assert str(bad[0]).startswith("its known answer differs here by ")
    assert bad[1] == "its known answer has another form here"
