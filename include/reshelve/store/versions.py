"""Published versions: `models/<ranker>/<version>/` on S3, immutable, made to exist by `manifest.json`, written last.

A version is the integer `YYYYMMDD * 1000 + attempt` of its partition, so integers sort by partition, then
attempt. A publisher first claims its integer with a conditional write: two publishers never write into one
directory, and what a killed one leaves behind has no manifest and so does not exist.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reshelve.errors import DataError, TryAgainError
from reshelve.lineage import Run, code_version
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.store.conditions import require_conditional_writes
from reshelve.store.manifest import (
    ATTEMPTS,
    CLAIM,
    MANIFEST,
    FileEntry,
    GateVerdict,
    Lineage,
    Manifest,
    partition_of,
    version_number,
    version_prefix,
)
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.signatures import (
    SIGNATURE,
    Trust,
    key_name,
    key_to_sign,
    signed,
    signing_key,
    trust,
)
from reshelve.store.uploads import Upload, upload

__all__ = [
    "Manifest",
    "check_directory",
    "check_uploaded",
    "describe_directory",
    "download_version",
    "list_versions",
    "partition_of",
    "publish",
    "read_file",
    "read_manifest",
    "require_manifest",
    "sign_again",
    "version_number",
    "version_prefix",
]


def list_versions(store: ObjectStore, ranker: str) -> list[int]:
    """Published versions (those with a manifest), ascending."""
    prefix = f"models/{ranker}/"
    found = []
    for key, _ in store.list(prefix):
        folder, _, name = key[len(prefix) :].partition("/")
        if name == MANIFEST and folder.isdigit():
            found.append(int(folder))
    return sorted(found)


def read_manifest(store: ObjectStore, ranker: str, version: int) -> Manifest | None:
    """The manifest, or None where the version was never published.

    Raises DataError where it is unreadable, another version's, or not signed by a trusted key.
    """
    found = store.get(f"{version_prefix(ranker, version)}/{MANIFEST}")
    if found is None:
        return None
    manifest = Manifest.parse(found.body, f"{ranker} version {version}", trust())
    if (manifest.ranker, manifest.version) != (ranker, version):
        raise DataError(
            f"{ranker} version {version}: its manifest is another version's",
            f"it names {manifest.ranker} {manifest.version}",
        )
    return manifest


def require_manifest(store: ObjectStore, ranker: str, version: int) -> Manifest:
    """The manifest. Raises DataError where the version is not published."""
    manifest = read_manifest(store, ranker, version)
    if manifest is None:
        known = ", ".join(map(str, list_versions(store, ranker)[-5:])) or "none"
        raise DataError(f"{ranker} version {version} is not published", f"newest published: {known}")
    return manifest


def check_uploaded(store: ObjectStore, manifest: Manifest) -> None:
    """Compare names and sizes on S3 with the manifest, without reading bytes. Raises DataError naming what differs."""
    prefix = version_prefix(manifest.ranker, manifest.version) + "/"
    sizes = {key[len(prefix) :]: size for key, size in store.list(prefix)}
    wrong = [path for path, file in manifest.files.items() if sizes.get(path) != file.size]
    if wrong:
        raise DataError(
            f"{manifest.ranker} version {manifest.version}: {len(wrong)} of {len(manifest.files)} files on S3 "
            "are missing or have another size",
            ", ".join(sorted(wrong)[:5]),
        )


def describe_directory(directory: Path) -> dict[str, FileEntry]:
    """Relative path → digest and size of every file below `directory`."""
    return {
        path.relative_to(directory).as_posix(): FileEntry(sha256=_sha256(path), size=path.stat().st_size)
        for path in sorted(directory.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def check_directory(manifest: Manifest, directory: Path) -> None:
    """Compare every byte below `directory` with the manifest. Raises DataError naming what differs."""
    found = describe_directory(directory)
    wrong = sorted(
        path for path in found.keys() | manifest.files.keys() if found.get(path) != manifest.files.get(path)
    )
    if wrong:
        raise DataError(
            f"{manifest.ranker} version {manifest.version}: {len(wrong)} files do not match the manifest's digests",
            ", ".join(wrong[:5]) + f" (in {directory})",
        )


def download_version(
    store: ObjectStore, ranker: str, version: int, directory: Path, rate: int | None = None
) -> Manifest:
    """Copy a version to `directory`, which appears only when every digest and size was verified.

    `rate`: bytes a second at most. A `directory` that is there and verifies is left alone; one that does not is
    replaced. Raises DataError where the version is not published or its bytes differ, TryAgainError where the disk is
    full or S3 away.
    """
    manifest = require_manifest(store, ranker, version)
    if directory.is_dir():
        try:
            check_directory(manifest, directory)
            return manifest
        except DataError as error:
            logger(ranker=ranker, version=version).warning(
                "local copy is bad, copied again", problem=error.detail
            )
    check_uploaded(store, manifest)
    incoming = directory.with_name(f".incoming-{directory.name}")
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        _copy(store, manifest, incoming, rate)
        check_directory(manifest, incoming)
        if directory.is_dir():
            shutil.rmtree(directory)
        incoming.rename(directory)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TryAgainError(f"{directory.parent}: the disk is full", str(error)) from error
        raise
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return manifest


def _copy(store: ObjectStore, manifest: Manifest, directory: Path, rate: int | None) -> None:
    directory.mkdir(parents=True)
    free = shutil.disk_usage(directory).free
    if free < manifest.bytes:
        raise TryAgainError(
            f"{directory.parent}: the disk is full",
            f"version {manifest.version} needs {manifest.bytes:,} bytes, {free:,} are free",
        )
    for path in manifest.files:
        key = f"{version_prefix(manifest.ranker, manifest.version)}/{path}"
        store.download_file(key, directory / path, rate=rate)


def read_file(store: ObjectStore, manifest: Manifest, path: str) -> bytes | None:
    """One file of a version, or None where it has none of that name. Raises DataError where its bytes differ."""
    expected = manifest.files.get(path)
    if expected is None:
        return None
    found = store.get(f"{version_prefix(manifest.ranker, manifest.version)}/{path}")
    if found is None or hashlib.sha256(found.body).hexdigest() != expected.sha256:
        raise DataError(
            f"{manifest.ranker} version {manifest.version}: {path} does not match the manifest's digest"
        )
    return found.body


def publish(run: Run) -> dict[str, Any]:
    """Put the packaged version on S3 under the next integer of its partition, unless the gate rejected it.

    The same run published before is given back. Raises TryAgainError where the stages before are not done.
    """
    gate = GateVerdict.model_validate(run.stage("gate").required())
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
        manifest = _publish(run, gate)
    return {
        **result,
        "published": True,
        "version": manifest.version,
        "uri": run.store.uri(version_prefix(run.ranker.name, manifest.version)),
        "files": len(manifest.files),
        "bytes": manifest.bytes,
    }


def _published_before(run: Run) -> Manifest | None:
    """The manifest of this very run, where an earlier process was killed after writing it."""
    first, last = version_number(run.partition, 0), version_number(run.partition, ATTEMPTS)
    for version in list_versions(run.store, run.ranker.name):
        if first < version <= last:
            manifest = read_manifest(run.store, run.ranker.name, version)
            if manifest is not None and manifest.lineage.run == run.id:
                return manifest
    return None


def _publish(run: Run, gate: GateVerdict) -> Manifest:
    directory = run.stage("package").files() / "version"
    if not directory.is_dir():
        raise DataError(f"{run.id}: stage package left no version/", f"expected a SavedModel in {directory}")
    key = key_to_sign()  # before any byte is sent: without a key nobody would load the version
    require_conditional_writes(run.store, f"models/{run.ranker.name}/")
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
    )
    check_uploaded(run.store, manifest)
    document = signed(manifest.model_dump(mode="json"), key)
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


def _lineage(run: Run, gate: GateVerdict) -> Lineage:
    return Lineage(
        partition=run.partition,
        run=run.id,
        spec_digest=run.ranker.digest(),
        code_version=code_version(),
        base=run.stage("train").required().get("base"),
        champion=(gate.champion or {}).get("version"),
        verdicts=run.stage("examples").required().get("verdicts") or {},
    )


def _claim(run: Run, files: dict[str, FileEntry]) -> tuple[int, bool]:
    """The next free integer of the partition, or the one that this very run began with these very files.

    Nobody else's claim is ever taken over: the bytes under an integer are one run's for ever. Whether an earlier
    process of the run is dead or only slow does not matter: both would write the same bytes to the same keys.
    """
    prefix = f"models/{run.ranker.name}/"
    day = version_number(run.partition, 0) // 1000
    taken = [int(name) for name in run.store.folders(prefix) if name.isdigit() and int(name) // 1000 == day]
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


def _sha256(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "0" * 64  # a link is never part of a version: make it differ from every manifest
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sign_again(store: ObjectStore, ranker: str, *, unsigned: bool = False) -> list[int]:
    """Sign the ranker's published versions with the present key, as keys are replaced; those that were.

    A version that no trusted key signed is left alone, unless `unsigned` says that the bucket is to be believed; a
    damaged one always is. Nothing but the signature changes.
    """
    key, trusted, done = signing_key(), trust(), []
    name = key_name(key.public_key())
    for version in list_versions(store, ranker):
        path, what = f"{version_prefix(ranker, version)}/{MANIFEST}", f"{ranker} version {version}"
        found = store.get(path)
        if found is None:
            continue
        try:
            bare = unsigned and SIGNATURE not in json.loads(found.body)
            manifest = Manifest.parse(found.body, what, Trust({}, False) if bare else trusted)
        except (DataError, ValueError) as error:
            logger(ranker=ranker, version=version).warning("not signed", problem=str(error))
            continue
        document = json.loads(manifest.body)
        if (document.get(SIGNATURE) or {}).get("key") != name:
            check_uploaded(store, manifest)
            store.put_json(path, signed(document, key), if_match=found.etag)
            done.append(version)
    return done
