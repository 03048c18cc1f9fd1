"""The publish stage: what the night packaged, as an immutable version on S3, unless the gate rejected it.

A publisher first claims its integer with a conditional write; `manifest.json`, written last, makes the version exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

from reshelve.errors import DataError
from reshelve.files import digest_of_file
from reshelve.kind_registry import kind_of
from reshelve.lineage.results import BlendResult, ExamplesResult, TrainResult
from reshelve.lineage.run import Run, code_version
from reshelve.logs import logger
from reshelve.names import version_of
from reshelve.pipeline.reuse import has_read_forgotten
from reshelve.progress import Progress
from reshelve.store.conditions import require_conditional_writes
from reshelve.store.layout import models_of
from reshelve.store.manifest import (
    ATTEMPTS,
    CLAIM,
    MANIFEST,
    FileEntry,
    GateVerdict,
    Manifest,
    ReleaseSteps,
    Spent,
    VersionLineage,
    version_number,
    version_prefix,
)
from reshelve.store.objects import PreconditionFailedError
from reshelve.store.signatures import key_to_sign, signed, trust
from reshelve.store.uploads import Upload, upload
from reshelve.store.versions import (
    check_uploaded,
    describe_directory,
    list_versions,
    read_manifest,
    require_manifest,
)


def publish(run: Run) -> dict[str, Any]:
    """Put the packaged version on S3 under the next integer of its partition, unless the gate rejected it.

    The same run published before is given back. Raises TryAgainError where the stages before are not done.
    """
    said = run.stage("gate").required()
    gate = GateVerdict.model_validate(said)
    result: dict[str, Any] = {
        "published": False,
        "version": None,
        "verdict": gate.verdict,
        "reason": "; ".join(gate.reasons),
    }
    if gate.verdict == "reject":
        return result
    manifest = _published_before(run)
    if manifest is None:
        _require_nobody_forgotten(run)
        manifest = _publish(run, gate, said.get("signature"))
    return {
        **result,
        "published": True,
        "version": manifest.version,
        "uri": run.store.uri(version_prefix(run.ranker.name, manifest.version)),
        "files": len(manifest.files),
        "bytes": manifest.bytes,
    }


def _require_nobody_forgotten(run: Run) -> None:
    """Raises DataError where somebody was forgotten whose rows this night may have read."""
    if has_read_forgotten(run):
        raise DataError(
            f"{run.id}: {run.ranker.data.source} was asked to forget somebody since this night read its rows",
            "nothing is published; repeat `reshelve forget`, then begin the night again",
        )


def _published_before(run: Run) -> Manifest | None:
    """The manifest of this very run, where an earlier process was killed after writing it."""
    first, last = version_number(run.partition, 0), version_number(run.partition, ATTEMPTS)
    for version in list_versions(run.store, run.ranker.name):
        if first < version <= last:
            manifest = read_manifest(run.store, run.ranker.name, version)
            if manifest is not None and manifest.lineage.run == run.id:
                return manifest
    return None


def _publish(run: Run, gate: GateVerdict, signature: dict[str, str] | None) -> Manifest:
    directory = run.stage("package").files() / "version"
    if not directory.is_dir():
        raise DataError(f"{run.id}: stage package left no version/", f"expected a SavedModel in {directory}")
    key = key_to_sign()  # before any byte is sent: without a key nobody would load the version
    require_conditional_writes(run.store, models_of(run.ranker.name))
    files = describe_directory(directory)
    version, resumed = _claim(run, files)
    prefix = version_prefix(run.ranker.name, version)
    todo = [Upload(directory / path, f"{prefix}/{path}", f.sha256, f.size) for path, f in files.items()]
    progress = Progress(
        logger(ranker=run.ranker.name, version=version), "uploading", "bytes", sum(file.size for file in todo)
    )
    sent = upload(run.store, todo, progress.add)
    manifest = Manifest(
        ranker=run.ranker.name,
        version=version,
        kind=run.ranker.kind,
        created_at=datetime.now(UTC),
        files=files,
        lineage=_lineage(run, gate),
        gate=gate,
        note=run.ranker.title,
        release=ReleaseSteps(**run.ranker.release.steps()),
        gate_signature=signature,
    )
    check_uploaded(run.store, manifest)
    document = signed(manifest.model_dump(mode="json"), key)
    Manifest.parse(json.dumps(document).encode(), f"{run.ranker.name} version {version}", trust())
    # Once more: the upload may have taken long, and no pin tells `forget` of a refresh.
    _require_nobody_forgotten(run)
    try:
        run.store.put_json(f"{prefix}/{MANIFEST}", document, if_absent=True)
    except PreconditionFailedError:
        # Only this very run resumes this integer, with these very files: the other process has published them.
        logger(ranker=run.ranker.name).info("another publisher of this run was first", version=version)
        return require_manifest(run.store, run.ranker.name, version)
    logger(ranker=run.ranker.name).info(
        "published",
        version=version,
        files=len(files),
        bytes=manifest.bytes,
        bytes_sent=sent,
        resumed=resumed,
    )
    return manifest


def _lineage(run: Run, gate: GateVerdict) -> VersionLineage:
    return VersionLineage(
        partition=run.partition,
        run=run.id,
        spec_digest=run.ranker.digest(),
        code_version=code_version(),
        base=run.stage("train").require(TrainResult).base,
        champion=(gate.champion or {}).get("version"),
        verdicts=run.stage("examples").require(ExamplesResult).verdicts,
        privacy=_spent(run),
        refreshed=run.stage("examples").require(ExamplesResult).refreshed,
        made_of=_made_of(run),
    )


def _made_of(run: Run) -> dict[str, str]:
    """The digests of what a refresh will read: signed with the manifest, so that nobody who writes to `runs/` can change it."""
    stages = kind_of(run.ranker.kind).refreshed_from
    if any(run.stage(name).result() is None for name in stages):
        return {}
    return {
        f"{name}/{path.name}": digest_of_file(path)
        for name in stages
        for path in sorted(run.stage(name).files().iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != "result.json"
    }


def _spent(run: Run) -> Spent | None:
    """Of the stage that made the tables, where the ranker's kind has it."""
    blended = run.stage("blend").read(BlendResult)
    return Spent.model_validate(blended.privacy) if blended and blended.privacy else None


def _claim(run: Run, files: dict[str, FileEntry]) -> tuple[int, bool]:
    """The next free integer of the partition, or the one that this very run began with these very files.

    Nobody else's claim is ever taken over: the bytes under an integer are one run's for ever. Whether an earlier
    process of the run is dead or only slow does not matter: both would write the same bytes to the same keys.
    """
    prefix = models_of(run.ranker.name)
    day = version_number(run.partition, 0) // 1000
    numbers = map(version_of, run.store.folders(prefix))
    taken = [number for number in numbers if number is not None and number // 1000 == day]
    claim = {"run": run.id, "process": f"{os.uname().nodename}:{os.getpid()}", "token": uuid.uuid4().hex}
    claim |= {"at": datetime.now(UTC).isoformat(), "files": _digest_of(files)}
    for version in sorted(taken, reverse=True):
        found = run.store.get_json(f"{prefix}{version}/{CLAIM}") or {}
        if (found.get("run"), found.get("files")) == (claim["run"], claim["files"]):
            logger(ranker=run.ranker.name).info("an upload that was broken off goes on", version=version)
            return version, True
    for attempt in range(max((v % 1000 for v in taken), default=0) + 1, ATTEMPTS + 1):
        version = version_number(run.partition, attempt)
        try:
            run.store.put_json(f"{version_prefix(run.ranker.name, version)}/{CLAIM}", claim, if_absent=True)
            return version, False
        except PreconditionFailedError:
            logger(ranker=run.ranker.name).info(
                "another publisher was first, taking the next attempt", version=version
            )
    raise DataError(
        f"{run.ranker.name}: partition {run.partition} has no attempt left", f"{ATTEMPTS} were made"
    )


def _digest_of(files: dict[str, FileEntry]) -> str:
    lines = "".join(f"{path}\0{entry.sha256}\0{entry.size}\n" for path, entry in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
