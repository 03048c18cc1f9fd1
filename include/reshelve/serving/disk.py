"""The versions on a model server's disk: `<models>/<ranker>/<version>/`, each verified before it counts.

A version's manifest is kept beside it as `.manifest-<version>.json`, so that an agent can verify what it finds
at its start while S3 is away. A model server ignores names that are no integers.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from reshelve.errors import DataError
from reshelve.logs import logger
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import trust
from reshelve.store.versions import check_directory, download_version

_LEFT_BEHIND = (".incoming-*", ".removed-*", ".manifest-*.partial")


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
        """Delete what a killed agent left, verify every byte of every version, remove those that fail."""
        for folder in sorted(
            path for path in self.models.iterdir() if path.is_dir() and not path.name.startswith(".")
        ):
            for pattern in _LEFT_BEHIND:
                for path in folder.glob(pattern):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
            self.verified[folder.name] = frozenset(v for v in versions if self._verifies(folder.name, v))

    def _verifies(self, ranker: str, version: int) -> bool:
        try:
            manifest = Manifest.parse(
                self._manifest(ranker, version).read_bytes(), f"{ranker} version {version}", trust()
            )
            if (manifest.ranker, manifest.version) != (ranker, version):
                raise DataError(f"its manifest is that of {manifest.ranker} {manifest.version}")
            check_directory(manifest, self.base_path(ranker) / str(version))
        except (OSError, DataError) as error:
            problem = f"{type(error).__name__}: {error}".splitlines()
            logger(ranker=ranker, version=version).warning(
                "a local version does not verify, removed", problem=problem
            )
            self._delete(ranker, version)
            return False
        return True

    def copy(self, store: ObjectStore, ranker: str, version: int, rate: int | None = None) -> None:
        """Copy and verify one version, at most `rate` bytes a second (blocking; errors as of `download_version`)."""
        self.base_path(ranker).mkdir(parents=True, exist_ok=True)
        directory = self.base_path(ranker) / str(version)
        manifest = download_version(store, ranker, version, directory, rate)
        path = self._manifest(ranker, version)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(manifest.body)
        partial.rename(path)
        with self._lock:
            self.verified[ranker] = self.of(ranker) | {version}

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
        self._manifest(ranker, version).unlink(missing_ok=True)

    def _manifest(self, ranker: str, version: int) -> Path:
        return self.base_path(ranker) / f".manifest-{version}.json"
