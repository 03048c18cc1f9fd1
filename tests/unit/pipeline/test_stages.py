"""Stages are declared: nothing that a stage runs or reads is left out, and a change does again what follows from it."""

from __future__ import annotations

import ast
import shutil
import sys
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from reshelve.config.ranker import Ranker, read_ranker
from reshelve.kind import Kind
from reshelve.kind_registry import kind_names
from reshelve.kind_registry import stages_of as names_of
from reshelve.lineage.kind_code import kind_digest, kind_modules
from reshelve.lineage.stage import PACKAGE, Stage, identity
from reshelve.pipeline.reuse import differences
from reshelve.pipeline.stages import CARRIERS, NAMES, STAGES, stages_of

DAY = date(2011, 8, 30)
SHARED = [stage for stage in STAGES if not stage.own]
# What is read there is read again when a result is taken over: `pipeline.stages` asks it of the base, and loading of the file.
ASKED_AGAIN = {"model.fitting", "kinds.misfits"}
MADE_OF = {"data.label_weights": "data.events"}  # a form's property → its key in the ranker file


@cache
def trees() -> dict[str, ast.Module]:
    """Module below the package (`training.worker`) → its syntax tree."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


@cache
def imported(module: str) -> set[str]:
    """Modules of ours that it imports, also inside functions; not what only types are told by."""
    named: set[str] = set()
    tree = trees()[module]
    of_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and is_type_checking(node)]
    left_out = {inner for node in of_types for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            named |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("reshelve.") for name in named if name.startswith("reshelve.")} & trees().keys()


def is_type_checking(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_every_stage_of_a_night_is_declared_in_its_order() -> None:
    nights = {kind: tuple(names_of(kind)) for kind in OWN_KINDS}
    assert set().union(*nights.values()) == set(NAMES)
    for kind, night in nights.items():
        assert night == tuple(name for name in NAMES if name in night), kind


def is_in(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


OWN_KINDS = sorted(name for name in kind_names() if (PACKAGE / "kinds" / name).is_dir())
FACETS = {name for name, member in vars(Kind).items() if isinstance(member, cached_property)}


@cache
def reached(stage: Stage) -> set[str]:
    """Every module that the stage's work imports, and theirs; behind what only carries nothing is looked at.

    Kinds are asked by name, so that their modules are begun with too.
    """
    found: set[str] = set()
    left = [*stage.work, *(f"kinds.{kind}.{facet}" for kind in OWN_KINDS for facet in stage.facets)]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [] if is_in(module, CARRIERS) and module not in stage.work else imported(module)
    return found


@pytest.mark.parametrize("stage", SHARED, ids=lambda stage: stage.name)
def test_no_stage_runs_code_that_it_does_not_declare(stage: Stage) -> None:
    modules = reached(stage)
    of_kinds = {
        module.removeprefix("reshelve.")
        for kind in OWN_KINDS
        for facet in stage.facets
        for module in kind_modules(kind, facet, PACKAGE)
    }
    left_out = {m for m in modules if not is_in(m, (*stage.code, *CARRIERS)) and m not in of_kinds}
    assert left_out == set(), "name their packages in `code` of this stage"
    idle = {name for name in stage.code if not any(is_in(module, (name,)) for module in modules)}
    assert idle == set(), "declared, and not imported"


@pytest.mark.parametrize("stage", SHARED, ids=lambda stage: stage.name)
def test_no_stage_asks_of_a_kind_what_it_does_not_declare(stage: Stage) -> None:
    """`kind_of(…).learning`, and `kind.learning`."""
    asked = set()
    for module in reached(stage):
        for node in ast.walk(trees()[module]):
            if isinstance(node, ast.Attribute) and node.attr in FACETS:
                of = node.value.func if isinstance(node.value, ast.Call) else node.value
                if isinstance(of, ast.Name) and of.id in ("kind_of", "kind"):
                    asked.add(node.attr)
    assert asked == set(stage.facets)


def test_storage_knows_neither_nights_nor_releases() -> None:
    above = ("config", "deployments", "lineage", "pipeline")
    found = {module: imported(module) for module in trees() if module.startswith("store.")}
    assert found
    assert {name for modules in found.values() for name in modules if is_in(name, above)} == set()


def read_of_ranker(module: str) -> set[str]:
    """`data.source` for `run.ranker.data.source`, `gates` for `ranker.gates`."""
    sections = Ranker.model_fields.keys() - {"name", "kind"}
    found = set()
    for node in ast.walk(trees()[module]):
        path, inner = [], node
        while isinstance(inner, ast.Attribute):
            path.insert(0, inner.attr)
            inner = inner.value
        path = [inner.id, *path] if isinstance(inner, ast.Name) else path
        if "ranker" in path and (after := path[path.index("ranker") + 1 :]) and after[0] in sections:
            key = ".".join(after[:2]) if after[0] in _forms() else after[0]
            found.add(MADE_OF.get(key, key))
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def _forms() -> set[str]:
    return {name for name, value in example()[0].model_dump().items() if isinstance(value, dict)}


@cache
def example() -> tuple[Ranker]:
    return (read_ranker("search"),)


@pytest.mark.parametrize("stage", SHARED, ids=lambda stage: stage.name)
def test_no_stage_reads_a_section_that_it_does_not_declare(stage: Stage) -> None:
    code = (*stage.code, "kinds")
    modules = [module for module in reached(stage) if is_in(module, code) and module not in ASKED_AGAIN]
    read = {path for module in modules for path in read_of_ranker(module)}
    assert read, "it reads nothing?"
    covered = {path for path in read if any(f"{path}.".startswith(f"{name}.") for name in stage.reads)}
    covered |= {path for path in read if any(name.startswith(f"{path}.") for name in stage.reads)}
    assert read - covered == set(), "name them in `reads` of this stage"


def identities(ranker: Ranker, package: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Of a whole night that has read the same."""
    made: dict[str, Any] = {}
    for stage in stages_of(ranker):
        if not stage.own:
            needs = {need: made[need].digest for need in stage.needs if need in made}
            made[stage.name] = identity(
                stage, ranker, DAY, needs=needs, found=found.get(stage.name, {}), package=package
            )
    return made


AFTER_TRAIN = {"blend", "compress", "package", "gate"}
ALL = {"examples", "tune", "train", *AFTER_TRAIN}
CHANGES: list[tuple[str, Any, set[str]]] = [
    # a key of the ranker file, its value
    ("owner", "someone else", set()),
    ("title", "Another title", set()),
    ("schedule", "0 5 * * *", set()),
    ("watch.keep_days", 77, set()),
    ("release.approval", True, set()),
    ("gates.slice_tolerance", 0.33, {"gate"}),
    ("gates.champion_tolerance", 0.02, {"gate"}),
    ("gates.max_queries", 997, ALL),
    ("release.top", 7, AFTER_TRAIN),
    ("compression.min_agreement", 0.93, ALL - {"examples"}),
    ("training.epochs", 0.77, ALL - {"examples"}),
    ("tuning.trials", 3, ALL - {"examples"}),
    ("model.pooling", "cls", ALL - {"examples"}),
    ("data.window_days", 44, ALL),
    # a file of the code
    ("reporting/report.py", None, set()),
    ("platform/summary.py", None, set()),
    ("monitoring/collect.py", None, set()),
    ("verbs/options.py", None, set()),
    ("config/ranker.py", None, set()),
    ("kind.py", None, set()),
    ("kinds/search/explanation.py", None, set()),
    ("kinds/pair/losses.py", None, set()),
    ("store/objects.py", None, set()),
    ("pipeline/stages.py", None, set()),
    ("client/client.py", None, {"compress", "package", "gate"}),
    ("evaluation/judgement.py", None, {"compress", "package", "gate"}),
    ("tuning/suggest.py", None, ALL - {"examples"}),
    ("config/tuning.py", None, ALL - {"examples"}),
    ("training/worker.py", None, ALL - {"examples"}),
    ("export/warmup.py", None, AFTER_TRAIN),
    ("examples/sampling.py", None, ALL),
    ("kinds/search/examples.py", None, ALL),
    ("kinds/search/searches.py", None, ALL),
    ("kinds/catalogue_learning.py", None, ALL - {"examples"}),
    ("kinds/search/requests.py", None, ALL - {"examples"}),
    ("kinds/search/blend_stage.py", None, AFTER_TRAIN),
    ("kinds/query_evaluation.py", None, {"compress", "package", "gate"}),
    ("statistics/bootstrap.py", None, AFTER_TRAIN),
    ("clickstream/events.py", None, ALL),
]  # fmt: skip


@pytest.mark.parametrize(("change", "value", "again"), CHANGES, ids=[change for change, _, _ in CHANGES])
def test_a_change_does_again_what_follows_from_it(
    change: str, value: Any, again: set[str], tmp_path: Path
) -> None:
    [ranker] = example()
    before = identities(ranker, PACKAGE, {})
    if change.endswith(".py"):
        package = tmp_path / "reshelve"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "templates"))
        edited = package / change
        edited.write_text(edited.read_text() + "\n# Another comment.\n")
        after = identities(ranker, package, {})
    else:
        after = identities(ranker.with_values({change: value}), PACKAGE, {})
    assert {name for name in after if after[name].digest != before[name].digest} == again
    for name in again:
        said = "; ".join(differences(before[name], after[name]))
        assert change in said or "code of " in said or "is done again" in said


@pytest.mark.parametrize(
    ("stage", "again"), [("examples", ALL), ("train", {"train", *AFTER_TRAIN}), ("gate", {"gate"})]
)
def test_what_a_stage_finds_is_part_of_it(stage: str, again: set[str]) -> None:
    [ranker] = example()
    before, after = (identities(ranker, PACKAGE, {stage: {"champion": version}}) for version in (1, 2))
    assert {name for name in after if after[name] != before[name]} == again
    assert differences(before[stage], after[stage]) == ["champion: 1 → 2"]


def test_the_old_name_of_a_section_is_no_difference() -> None:
    [ranker] = example()
    now = identities(ranker, PACKAGE, {})["tune"]
    values = {("search" if key == "tuning" else key): value for key, value in now.values.items()}
    before = now.model_copy(update={"values": {**values, "search": {**values["search"], "trials": 99}}})
    assert differences(before, now) == [f"tuning.trials: 99 → {ranker.tuning.trials}"]


def test_the_code_of_a_kind_in_its_own_package_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged = tmp_path / "plugged"
    shutil.copytree(Path(__file__).parents[1] / "examples" / "toy_kind", plugged)
    monkeypatch.syspath_prepend(plugged)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop_again"]:
        monkeypatch.delitem(sys.modules, name)  # of another test's folder
    kind_digest.cache_clear()
    ranker = example()[0].with_values({"kind": "again"})
    before = identities(ranker, PACKAGE, {})
    code = plugged / "shop_again" / "learning.py"
    (code.parent / "metric.py").write_text("TOP = 5\n")
    code.write_text(code.read_text() + "\nfrom .metric import TOP  # noqa\n")
    kind_digest.cache_clear()
    after = identities(ranker, PACKAGE, {})
    changed = {name for name in after if after[name].digest != before[name].digest}
    assert changed == {"tune", "train", "compress", "package", "gate"}
    assert differences(before["train"], after["train"])[0] == "code of again's learning"
    (code.parent / "metric.py").write_text("TOP = 20\n")
    kind_digest.cache_clear()
    assert identities(ranker, PACKAGE, {})["train"].code != after["train"].code, (
        "what it imports is its code too"
    )
