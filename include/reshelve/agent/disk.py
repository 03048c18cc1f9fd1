"""The versions on a model server's disk: `<models>/<ranker>/<version>/`, each verified before it counts.

A version's manifest is kept beside it as `.manifest-<version>.json`, so that an agent can verify what it finds at its
start while S3 is away. It also says whose a version is: what has no manifest of ours beside it is somebody else's, and is
neither loaded, nor changed, nor deleted. A model server ignores names that are no integers.
"""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

from reshelve.errors import DataError
from reshelve.files import write_whole
from reshelve.logs import logger
from reshelve.names import is_ranker
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import trust
from reshelve.store.versions import check_directory, download_version, require_manifest

_MANIFEST = re.compile(r"\.manifest-([1-9][0-9]{0,10})\.json")
_PARTIAL = re.compile(r"\.(manifest|load)-[1-9][0-9]{0,10}\.json\.partial")


def carries_manifest(folder: Path) -> bool:
    """Whether any version below a ranker's folder is ours."""
    return any(_MANIFEST.fullmatch(path.name) for path in folder.glob(".manifest-*.json"))


def has_manifest(folder: Path, version: int) -> bool:
    """Whether a version is ours."""
    return (folder / f".manifest-{version}.json").is_file()


def foreign_folder(models: Path) -> Path | None:
    """A folder with numbered SavedModels of which none is ours, if there is one; one that cannot be read is none."""
    for folder in sorted(
        path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")
    ):
        try:
            numbered = [path for path in folder.iterdir() if path.name.isdecimal()]
        except PermissionError:  # lost+found on a volume of its own
            continue
        if not carries_manifest(folder) and any((path / "saved_model.pb").is_file() for path in numbered):
            return folder
    return None


class Disk:
    """The models directory of one server. `verified` is what may be loaded."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.verified: dict[str, frozenset[int]] = {}
        self._lock = threading.Lock()  # copies end in a thread of their own

    def base_path(self, ranker: str) -> Path:
        """Where a ranker's versions are."""
        return self.models / ranker

    def of(self, ranker: str) -> frozenset[int]:
        """Verified versions of a ranker."""
        return self.verified.get(ranker, frozenset())

    def start(self) -> None:
        """Delete what a killed agent left of our versions, verify every byte of each, remove those that fail."""
        for folder in sorted(p for p in self.models.iterdir() if p.is_dir() and is_ranker(p.name)):
            ours = sorted(
                int(name[1])
                for path in folder.glob(".manifest-*.json")
                if (name := _MANIFEST.fullmatch(path.name))
            )
            for path in folder.glob(".*.partial") if ours else ():
                if _PARTIAL.fullmatch(path.name):
                    path.unlink()
            if ours:
                self.verified[folder.name] = frozenset(v for v in ours if self._verifies(folder.name, v))

    def _verifies(self, ranker: str, version: int) -> bool:
        try:
            manifest = self._own_manifest(ranker, version)
        except (OSError, DataError) as error:
            logger(ranker=ranker, version=version).warning(
                "a local version whose manifest is not ours is left alone", problem=str(error)
            )
            return False
        for left in (".incoming-", ".removed-"):
            shutil.rmtree(self.base_path(ranker) / f"{left}{version}", ignore_errors=True)
        try:
            check_directory(manifest, self.base_path(ranker) / str(version))
        except (OSError, DataError) as error:
            problem = f"{type(error).__name__}: {error}".splitlines()
            logger(ranker=ranker, version=version).warning(
                "a local version does not verify, removed", problem=problem
            )
            self._delete(ranker, version)
            return False
        return True

    def _own_manifest(self, ranker: str, version: int) -> Manifest:
        """The manifest beside a version. Raises OSError where there is none, DataError where it is not one of ours."""
        body = self._manifest(ranker, version).read_bytes()
        manifest = Manifest.parse(body, f"{ranker} version {version}", trust())
        if (manifest.ranker, manifest.version) != (ranker, version):
            raise DataError(f"its manifest is that of {manifest.ranker} {manifest.version}")
        return manifest

    def copy(self, store: ObjectStore, ranker: str, version: int, rate: int | None = None) -> None:
        """Copy and verify one version, at most `rate` bytes a second (blocking; errors as of `download_version`).

        The manifest comes first: what is copied is known to be ours before a byte of it is there. A directory of that
        number without one is taken over where it has the very bytes, and else left alone: DataError.
        """
        self.base_path(ranker).mkdir(parents=True, exist_ok=True)
        directory = self.base_path(ranker) / str(version)
        manifest = require_manifest(store, ranker, version)
        if (directory.exists() or directory.is_symlink()) and not self._is_ours(ranker, version):
            try:
                check_directory(manifest, directory)
            except (OSError, DataError) as error:
                raise DataError(
                    f"{directory} is in the way: it has no manifest of ours, and other bytes",
                    "Reshelve deletes only its own files; move it, or give the agent its own directory",
                ) from error
        self._write_manifest(manifest)
        try:
            manifest = download_version(store, ranker, version, directory, rate)
        except BaseException:
            if not directory.exists():
                self._manifest(ranker, version).unlink(missing_ok=True)
            raise
        self._write_manifest(manifest)  # it may have been signed again meanwhile
        with self._lock:
            self.verified[ranker] = self.of(ranker) | {version}

    def _is_ours(self, ranker: str, version: int) -> bool:
        try:
            self._own_manifest(ranker, version)
        except (OSError, DataError):
            return False
        return True

    def _write_manifest(self, manifest: Manifest) -> None:
        path = self._manifest(manifest.ranker, manifest.version)
        if path.is_file() and path.read_bytes() == manifest.body:
            return
        write_whole(path, manifest.body, durable=True)

    def remove(self, ranker: str, version: int) -> None:
        """Delete a version that no server holds."""
        with self._lock:
            self.verified[ranker] = self.of(ranker) - {version}
        self._delete(ranker, version)

    def _delete(self, ranker: str, version: int) -> None:
        directory = self.base_path(ranker) / str(version)
        removed = directory.with_name(f".removed-{version}")
        shutil.rmtree(removed, ignore_errors=True)
        if directory.is_symlink() or not directory.is_dir():
            directory.unlink(missing_ok=True)
        else:
            # Renamed first: killed half-way, no half of a version stays under an integer name.
            directory.replace(removed)
            shutil.rmtree(removed)
        self._manifest(ranker, version).unlink(
            missing_ok=True
        )  # last: until then it says that all this is ours

    def _manifest(self, ranker: str, version: int) -> Path:
        return self.base_path(ranker) / f".manifest-{version}.json"
