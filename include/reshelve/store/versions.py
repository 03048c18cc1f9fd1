"""Published versions: `models/<ranker>/<version>/` on S3, immutable, made to exist by `manifest.json`, written last.

A version is the integer `YYYYMMDD * 1000 + attempt` of its partition, so integers sort by partition, then
attempt. A publisher first claims its integer with a conditional write: two publishers never write into one
directory, and what a killed one leaves behind has no manifest and so does not exist.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reshelve.errors import DataError, TryAgainError
from reshelve.files import digest_of_file
from reshelve.logs import logger
from reshelve.names import version_of
from reshelve.store.json_documents import json_object
from reshelve.store.layout import models_of
from reshelve.store.manifest import (
    MANIFEST,
    FileEntry,
    GateVerdict,
    Manifest,
    partition_of,
    version_number,
    version_prefix,
)
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import (
    SIGNATURE,
    Trust,
    key_name,
    signing_key,
    trust,
)
from reshelve.store.verdicts import sign_verdict, signed_manifest

__all__ = [
    "Manifest",
    "check_directory",
    "check_uploaded",
    "describe_directory",
    "download_version",
    "list_versions",
    "partition_of",
    "read_file",
    "read_manifest",
    "require_manifest",
    "sign_again",
    "sign_result",
    "version_number",
    "version_prefix",
]


def list_versions(store: ObjectStore, ranker: str) -> list[int]:
    """Published versions (those with a manifest), ascending."""
    prefix = models_of(ranker)
    found = []
    for key, _ in store.list(prefix):
        folder, _, name = key[len(prefix) :].partition("/")
        version = version_of(folder)
        if name == MANIFEST and version is not None:
            found.append(version)
    return sorted(found)


def read_manifest(store: ObjectStore, ranker: str, version: int) -> Manifest | None:
    """The manifest, or None where the version was never published.

    Raises DataError where it is unreadable, another version's, or not signed by a trusted key.
    """
    found = store.get(f"{version_prefix(ranker, version)}/{MANIFEST}")
    if found is None:
        return None
    manifest = Manifest.parse(found.body, f"{ranker} version {version}", trust(), stored_at=found.stored_at)
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
        path.relative_to(directory).as_posix(): FileEntry(
            sha256=_digest_of_part(path), size=path.stat().st_size
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def sign_result(ranker: str, directory: Path, result: dict[str, Any]) -> dict[str, Any]:
    """A gate's result with the gate's signature: of its verdict, on these very files. Raises ConfigurationError without a key."""
    files = {path: file.sha256 for path, file in describe_directory(directory).items()}
    verdict = GateVerdict.model_validate(result).model_dump(mode="json")
    return {**result, "signature": sign_verdict(ranker, files, verdict)}


def check_directory(manifest: Manifest, directory: Path) -> None:
    """Compare every byte below `directory` with the manifest. Raises DataError naming what differs.

    A link to a directory is none: what is behind it may be changed from elsewhere.
    """
    if directory.is_symlink():
        raise DataError(f"{directory} is a link", "expected a directory")
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
    store: ObjectStore,
    ranker: str,
    version: int,
    directory: Path,
    rate: int | None = None,
    check: Callable[[Path], object] = lambda _: None,
) -> Manifest:
    """Copy a version to `directory`, which appears only when every digest and size was verified, and `check` is content.

    `rate`: bytes a second at most. A `directory` that is there and verifies is left alone; one that does not gets the right
    files one by one, and is there all the time. Raises DataError where the version is not published or its bytes differ, or
    `check` raises it; TryAgainError where the disk is full or S3 away.
    """
    manifest = require_manifest(store, ranker, version)
    if directory.is_dir():
        try:
            check_directory(manifest, directory)
        except DataError as error:
            logger(ranker=ranker, version=version).warning(
                "local copy is bad, copied again", problem=error.detail
            )
        else:
            check(directory)
            return manifest
    check_uploaded(store, manifest)
    incoming = directory.with_name(f".incoming-{directory.name}")
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        _copy(store, manifest, incoming, rate)
        check_directory(manifest, incoming)
        check(incoming)
        _put_in_place(manifest, incoming, directory)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TryAgainError(f"{directory.parent}: the disk is full", str(error)) from error
        raise
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return manifest


def _put_in_place(manifest: Manifest, incoming: Path, directory: Path) -> None:
    """Make `directory` what `incoming` is. A server drops a version whose directory is gone, so it is never gone."""
    if directory.is_symlink() or not directory.is_dir():
        directory.unlink(missing_ok=True)
        incoming.rename(directory)
        return
    for path in sorted(directory.rglob("*"), reverse=True):  # what is within a folder comes before it
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or (path.is_file() and name not in manifest.files):
            path.unlink()
        elif path.is_dir() and not any(known.startswith(f"{name}/") for known in manifest.files):
            shutil.rmtree(path)
    # The graph last: a server that finds it takes the version for whole, and its variables for what is there then.
    for name in sorted(manifest.files, key=lambda name: name == "saved_model.pb"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (incoming / name).replace(directory / name)


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


def _digest_of_part(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "0" * 64  # a link is never part of a version: make it differ from every manifest
    return digest_of_file(path)


def sign_again(store: ObjectStore, ranker: str, *, unsigned: bool = False) -> list[int]:
    """Sign the ranker's published versions with the present key, as keys are replaced; those that were.

    A version that no trusted key signed is left alone, unless `unsigned` says that the bucket is to be believed; a
    damaged one always is. Nothing but the signature changes.
    """
    name, trusted, done = key_name(signing_key().public_key()), trust(), []
    for version in list_versions(store, ranker):
        path, what = f"{version_prefix(ranker, version)}/{MANIFEST}", f"{ranker} version {version}"
        found = store.get(path)
        if found is None:
            continue
        try:
            bare = unsigned and SIGNATURE not in json_object(found.body)
            manifest = Manifest.parse(found.body, what, Trust({}, False) if bare else trusted)
        except (DataError, ValueError) as error:
            logger(ranker=ranker, version=version).warning("not signed", problem=str(error))
            continue
        document = json_object(manifest.body)
        if (document.get(SIGNATURE) or {}).get("key") != name:
            check_uploaded(store, manifest)
            # A verdict from before there were roles is signed too: whoever signs the version again says that it holds.
            store.put_json(path, signed_manifest(document), if_match=found.etag)
            done.append(version)
    return done
