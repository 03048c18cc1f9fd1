"""A version of the model that serves with a newer product list: no training, no examples, the same release.

It is a run of the day that the model was trained for, so that every later night finds of it what it finds of a night: where its
weights are, which days they know, whom they have left out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import entry_if_valid, read_pointer
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.evaluation.refreshed import judge_refresh
from reshelve.examples.changed_catalogue import CatalogueChange
from reshelve.export.heldout import HeldOutQuestion
from reshelve.export.known_answers import FILE as KNOWN_ANSWERS
from reshelve.export.package import build_version
from reshelve.export.version import VersionBuilder
from reshelve.files import digest_of_file
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Result, Run, code_version, run_stage, stage_prefix
from reshelve.logs import logger
from reshelve.pipeline.products import ProductList, read_products
from reshelve.pipeline.publish import publish
from reshelve.protocol.server_errors import NothingServesError
from reshelve.protocol.version_items import read_catalogue
from reshelve.rollout.left_versions import taken_back
from reshelve.settings import settings
from reshelve.store.layout import run_folder
from reshelve.store.manifest import FreshCatalogue, Manifest
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import read_file, require_manifest

MOST_REMOVED = 0.2
"""Share of a version's items that a list may lack: one that is cut off lacks many."""
_QUESTIONS = 64  # that a version keeps, as a night's
_REMEMBERED = 256
_VARIABLES = "variables/variables.data-00000-of-00001"


def refresh(ranker: Ranker, given: Path | None = None, *, allow_removed: bool = False) -> dict[str, Any]:
    """Publish the model that serves with the titles of `given`, or of the list that was landed; nothing where they are the same.

    Raises ConfigurationError where the ranker's kind has to be trained for another catalogue, NothingServesError where nothing
    serves, DataError where the list is none, lacks a large share of the items (unless `allow_removed`), or the version does not
    say what it is made of; TryAgainError where the disk has no room, or another version serves meanwhile. The answer's `verdict` is
    the gate's, but hold of a version that was published before and then taken back.
    """
    if not kind_of(ranker.kind).refreshed_from:
        raise ConfigurationError(
            f"{ranker.name} is a {ranker.kind} ranker: its versions take no other catalogue without training",
            "expected a search ranker; others get new products by their next night",
        )
    began, store = time.monotonic(), object_store()
    parent = _serving(store, ranker)
    with tempfile.TemporaryDirectory(prefix="reshelve-refresh-") as made:
        products = read_products(store, ranker, given, Path(made))
    change = _change(store, ranker, parent, products)
    about = {"ranker": ranker.name, "parent": parent.version, "items": len(change.items), **change.counts()}
    if not change.is_one:
        nothing = f"version {parent.version} has these titles already: nothing to do"
        return {"headline": nothing, **about, "published": False, "version": None, "reason": nothing}
    _check_removed(parent, change, allowed=allow_removed)
    run = _run_of(ranker, store, parent, products)
    foretold = _foretold(run, parent, change)
    logger(ranker=ranker.name, run=run.id).info("another catalogue", of=parent.version, **change.counts())
    sources = _prepare(run, parent, products, change)
    known = _known_texts(store, parent)
    package = run_stage(run, "package", lambda run: _package(run, change, known))
    remembered = kind_of(ranker.kind).refresh.remembered(sources, _REMEMBERED)
    said = run_stage(run, "gate", lambda run: judge_refresh(run, parent.version, change, known, remembered))
    _require_serves(store, parent)
    done = run_stage(run, "publish", publish)
    verdict, reasons = said["verdict"], said["reasons"]
    if done["version"] is not None and (why := _taken_back(store, ranker.name, done["version"])):
        verdict, reasons = "hold", [why, *reasons]
    return {
        **about, **said["refreshed"], "run": run.id, "verdict": verdict, "reason": "; ".join(reasons),
        "published": done["published"], "version": done["version"], "bytes": package["bytes"], "foretold_bytes": foretold,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _serving(store: ObjectStore, ranker: Ranker) -> Manifest:
    pointer = read_pointer(store, ranker.name)
    if pointer is None or pointer.stable is None:
        raise NothingServesError(
            f"{ranker.name}: nothing was released yet", "a night trains the first version"
        )
    manifest = require_manifest(store, ranker.name, pointer.stable)
    if manifest.kind != ranker.kind:
        raise ConfigurationError(
            f"{ranker.name} version {pointer.stable} is of the kind {manifest.kind}, its ranker file of {ranker.kind}",
            "a night trains the first version of a new kind",
        )
    if not manifest.lineage.made_of:
        raise DataError(
            f"{ranker.name} version {pointer.stable} does not say what it is made of",
            "it was published by earlier code; the next night's version can be refreshed",
        )
    return manifest


def _require_serves(store: ObjectStore, parent: Manifest) -> None:
    """Raises TryAgainError where another version serves by now: this one would put an older model in its place."""
    pointer = read_pointer(store, parent.ranker)
    serves = None if pointer is None else pointer.stable
    if serves != parent.version:
        raise TryAgainError(
            f"{parent.ranker}: version {serves} serves by now, this has the model of {parent.version}",
            "nothing is published; the same command takes the one that serves",
        )


def _taken_back(store: ObjectStore, ranker: str, version: int) -> str:
    """Who took back the version of this very list and model, where it was published before; empty where nobody did."""
    pointer = read_pointer(store, ranker)
    if pointer is None:
        return ""
    made_at = require_manifest(store, ranker, version).created_at
    entry = taken_back(
        pointer, version, lambda number: entry_if_valid(store, ranker, number), made_at=made_at
    )
    if entry is None:
        return ""
    said = f"{entry.pointer.by}: {entry.pointer.reason or 'no reason was given'}"
    return f"version {version} has this list and model, and was taken back ({entry.action}) by {said}"


def _change(store: ObjectStore, ranker: Ranker, parent: Manifest, products: ProductList) -> CatalogueChange:
    known = read_catalogue(store, ranker.name, parent.version)
    return CatalogueChange.of(
        [item.id for item in known],
        [item.title for item in known],
        [item.events for item in known],
        products.titles,
        by_demand=not ranker.remember.privacy.on,
    )


def _check_removed(parent: Manifest, change: CatalogueChange, *, allowed: bool) -> None:
    before = len(change.removed) + int((~change.new).sum())
    if len(change.removed) > MOST_REMOVED * before and not allowed:
        raise DataError(
            f"the list lacks {len(change.removed):,} of the {before:,} items of version {parent.version}",
            f"expected all products: of a list that is cut off at most {MOST_REMOVED:.0%} are missing; --allow-removed takes it as it is",
        )


def _run_of(ranker: Ranker, store: ObjectStore, parent: Manifest, products: ProductList) -> Run:
    """The same parent, list, ranker file and code are the same run: what was broken off goes on."""
    made_from = f"{parent.lineage.run}:{parent.version}:{products.digest}:{ranker.digest()}:{code_version()}"
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    return Run(ranker, parent.lineage.partition, store, settings().work, begun=digest)


def _foretold(run: Run, parent: Manifest, change: CatalogueChange) -> int:
    """Bytes of the version, if its variables grow as the catalogue does. Raises TryAgainError where the disk has no room for the work.

    That is the version, the one before beside it in the gate, and the files of the parent's stages, as they were and anew.
    """
    before = len(change.removed) + int((~change.new).sum())
    variables = parent.files[_VARIABLES].size if _VARIABLES in parent.files else 0
    found = parent.bytes + round(variables * (len(change.items) / before - 1))
    needed = found + parent.bytes + 2 * sum(_stage_sizes(run.store, parent).values())
    directory = run.stage("parent").directory.parent
    directory.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    free = shutil.disk_usage(directory).free
    if needed > free + there:
        raise TryAgainError(
            f"a version of {len(change.items):,} products takes some {needed:,} bytes of work, and the disk of {run.work} has {free:,} free",
            f"expected room for it ({found:,}), the version that serves and twice what that is made of: free some, or move "
            "RESHELVE_HOME to a larger disk",
        )
    return found


def _stage_sizes(store: ObjectStore, parent: Manifest) -> dict[str, int]:
    """Bytes of each file of the parent's stages that a refresh reads, by its key in `made_of`."""
    found: dict[str, int] = {}
    for name in {key.partition("/")[0] for key in parent.lineage.made_of}:
        prefix = f"{stage_prefix(store, parent.lineage.run, name)}/"
        sizes = {f"{name}/{key.removeprefix(prefix)}": size for key, size in store.list(prefix)}
        found |= {key: size for key, size in sizes.items() if key in parent.lineage.made_of}
    return found


def _prepare(
    run: Run, parent: Manifest, products: ProductList, change: CatalogueChange
) -> Mapping[str, Path]:
    """Do the stages before packaging: the parent's, with another catalogue. Returns the parent's files, verified."""
    with run.stage("parent").lock():
        before = _verified(run, parent)
    names = tuple(before)
    with run.stage("examples").lock():
        if all(run.stage(name).result() is not None for name in (*names, "examples")):
            return before
        began = time.monotonic()
        after = {name: run.stage(name).directory for name in names}
        kind_of(run.ranker.kind).refresh.write(
            before, after, change, lambda train, titles: _vectors(run, train, titles)
        )
        for name in names:
            run.stage(name).commit(_as_of_parent(run, parent, name, time.monotonic() - began))
        examples = run.stage("examples")
        change.catalogue().write(examples.directory / "catalogue.parquet")
        shutil.copyfile(after["train"] / "tokenizer.json", examples.directory / "tokenizer.json")
        fresh = FreshCatalogue(parent=parent.version, products=products.digest, **change.counts())
        result = _as_of_parent(run, parent, "examples", time.monotonic() - began)
        examples.commit({**result, "items": len(change.items), "refreshed": fresh.model_dump()})
    return before


def _vectors(run: Run, train: Path, titles: Sequence[str]) -> np.ndarray:
    """By the parent's encoder; what the store has of it, as of an item that comes back, is not read again."""
    from reshelve.training.title_cache import TitleCache

    return TitleCache(run.store, run.ranker.name, train).vectors(titles)


def _as_of_parent(run: Run, parent: Manifest, name: str, seconds: float) -> Result:
    """What a stage of the parent's night said holds of this one, which no other run takes over; what the lineage will say is the signed one's."""
    said = run.store.get_json(f"{run_folder(parent.lineage.run)}{name}/result.json")
    if said is None:
        raise DataError(
            f"{parent.lineage.run}: the result of stage {name} is gone",
            "the next night's version can be refreshed",
        )
    signed = {
        "examples": {"verdicts": parent.lineage.verdicts},
        "train": {"base": parent.lineage.base},
        "blend": {"privacy": parent.lineage.privacy and parent.lineage.privacy.model_dump()},
    }.get(name, {})
    return {**said, **signed, "run": run.id, "identity": "", "seconds": round(seconds, 1)}


def _verified(run: Run, parent: Manifest) -> dict[str, Path]:
    """The files of the parent's stages, each with the digest that its signed manifest has. Raises DataError where one has not."""
    directory = run.stage("parent").directory
    stages = {name: directory / name for name in kind_of(run.ranker.kind).refreshed_from}
    for key, digest in parent.lineage.made_of.items():
        name, _, file = key.partition("/")
        if name not in stages or not file or Path(file).name != file:
            continue
        path = stages[name] / file
        if path.is_file() and digest_of_file(path) == digest:
            continue
        stored = f"{stage_prefix(run.store, parent.lineage.run, name)}/{file}"
        if not run.store.exists(stored):
            raise DataError(
                f"{stored} is gone", "expected it with its version; the next night's can be refreshed"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        run.store.download_file(stored, path)
        if digest_of_file(path) != digest:
            path.unlink()
            raise DataError(
                f"{stored} is not what version {parent.version} was made of",
                "its signed manifest has another digest",
            )
    return stages


def _known_texts(store: ObjectStore, parent: Manifest) -> list[str]:
    """What the parent's known answers ask: texts that may be kept."""
    body = read_file(store, parent, KNOWN_ANSWERS.as_posix())
    if body is None:
        raise DataError(
            f"{parent.ranker} version {parent.version} has no known answers", f"expected {KNOWN_ANSWERS}"
        )
    (texts,) = json.loads(body)["inputs"].values()
    return [str(one) for one in texts]


def _package(run: Run, change: CatalogueChange, known: list[str]) -> Result:
    """The known questions are asked again, and titles, those of today first, warm it up."""
    fresh = [title for title, new in zip(change.titles, change.new | change.retitled, strict=True) if new]
    texts = dict.fromkeys([*known, *fresh[:_QUESTIONS], *change.titles[:_QUESTIONS]])
    questions = [HeldOutQuestion(one, []) for one in texts][:_QUESTIONS]
    return build_version(VersionBuilder(run), questions, questions)
