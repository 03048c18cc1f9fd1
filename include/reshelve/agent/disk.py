"""The versions on a model server's disk: `<models>/<ranker>/<version>/`, each verified before it counts.

Verified are its bytes, by the signed manifest, and that its graph only computes.

A version's manifest is kept beside it as `.manifest-<version>.json`, so that an agent can verify what it finds at its
start while S3 is away. It also says whose a version is: what has no manifest of ours beside it is somebody else's, and is
neither loaded, nor changed, nor deleted. A model server ignores names that are no integers.
"""

from __future__ import annotations

import re
import shutil
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from reshelve.errors import DataError
from reshelve.files import open_to_others, write_whole
from reshelve.logs import logger
from reshelve.names import is_ranker
from reshelve.protocol.saved_model_check import check_saved_model
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


Stamp = frozenset[tuple[str, int, int, int, int]]
"""What the file system says of a version's files: path, number, size, and the times of its last changes."""


@dataclass(frozen=True)
class _Verified:
    """When a version was verified last, and what its files were like. `spoiled`: they changed, and are wrong now."""

    stamp: Stamp
    at: float
    spoiled: bool = False


class Disk:
    """The models directory of one server."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self._found: dict[tuple[str, int], _Verified] = {}
        self._refused: set[tuple[str, int]] = set()
        self._lock = threading.Lock()  # copies and verifications end in threads of their own

    def base_path(self, ranker: str) -> Path:
        """Where a ranker's versions are."""
        return self.models / ranker

    @property
    def verified(self) -> dict[str, frozenset[int]]:
        """Ranker → versions that were verified here. A server that has one may keep it, whatever became of the files."""
        copies = list(self._found)
        return {ranker: frozenset(v for name, v in copies if name == ranker) for ranker, _ in copies}

    def of(self, ranker: str) -> frozenset[int]:
        """Verified versions of a ranker."""
        return frozenset(version for name, version in list(self._found) if name == ranker)

    def refused(self, ranker: str) -> frozenset[int]:
        """Versions of ours whose bytes are right and whose graph this agent does not allow: kept, never loaded, and listed only while a server has them."""
        return frozenset(version for name, version in list(self._refused) if name == ranker)

    def sound(self, ranker: str) -> frozenset[int]:
        """Those whose files are as they were when they were verified: only these may be loaded."""
        return frozenset(
            version
            for version in self.of(ranker)
            if (found := self._found.get((ranker, version))) is not None
            and not found.spoiled
            and found.stamp == self._stamp(ranker, version)
        )

    def is_spoiled(self, ranker: str, version: int) -> bool:
        """Whether its files are known to be wrong now."""
        found = self._found.get((ranker, version))
        return found is not None and found.spoiled

    def verified_at(self, ranker: str, version: int) -> float:
        """When all its bytes were read last, on the monotonic clock."""
        found = self._found.get((ranker, version))
        return float("-inf") if found is None else found.at

    def verify(self, ranker: str, version: int) -> Stamp:
        """Read every byte, and give what the files were like before. Raises OSError or DataError where they are wrong."""
        stamp = self._stamp(ranker, version)
        check_directory(self._own_manifest(ranker, version), self.base_path(ranker) / str(version))
        return stamp

    def found_sound(self, ranker: str, version: int, stamp: Stamp) -> None:
        """It was verified while its files were like `stamp`."""
        with self._lock:
            if (ranker, version) in self._found:
                self._found[ranker, version] = _Verified(stamp, time.monotonic())

    def found_spoiled(self, ranker: str, version: int) -> None:
        """It was verified, and is wrong now. It is copied again."""
        with self._lock:
            if (ranker, version) in self._found:
                self._found[ranker, version] = _Verified(frozenset(), float("-inf"), spoiled=True)

    def give_up(self, ranker: str, version: int) -> None:
        """Let it count no more; its files stay until they are copied again, or not wanted."""
        with self._lock:
            self._found.pop((ranker, version), None)

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
            for version in ours:
                self._start_with(folder.name, version)

    def _start_with(self, ranker: str, version: int) -> None:
        try:
            manifest = self._own_manifest(ranker, version)
        except (OSError, DataError) as error:
            logger(ranker=ranker, version=version).warning(
                "a local version whose manifest is not ours is left alone", problem=str(error)
            )
            return
        for left in (".incoming-", ".removed-"):
            shutil.rmtree(self.base_path(ranker) / f"{left}{version}", ignore_errors=True)
        directory = self.base_path(ranker) / str(version)
        try:
            self._open(ranker, version)
            stamp = self._stamp(ranker, version)
            check_directory(manifest, directory)
        except (OSError, DataError) as error:
            problem = f"{type(error).__name__}: {error}".splitlines()
            logger(ranker=ranker, version=version).warning(
                "a local version does not verify, removed", problem=problem
            )
            self._delete(ranker, version)
            return
        try:
            check_saved_model(directory)
        except (OSError, DataError) as error:
            # What is allowed is a setting: an agent that was started without it takes nothing from its server.
            logger(ranker=ranker, version=version).error(
                "a local version is not allowed here (RESHELVE_GRAPH_OPERATIONS?): if a server has it loaded it "
                "goes on, and it is not loaded again",
                problem=str(error),
            )
            self._refused.add((ranker, version))
            return
        self._count(ranker, version, stamp)

    def _own_manifest(self, ranker: str, version: int) -> Manifest:
        """The manifest beside a version. Raises OSError where there is none, DataError where it is not one of ours."""
        body = self._manifest(ranker, version).read_bytes()
        manifest = Manifest.parse(body, f"{ranker} version {version}", trust())
        if (manifest.ranker, manifest.version) != (ranker, version):
            raise DataError(f"its manifest is that of {manifest.ranker} {manifest.version}")
        return manifest

    def copy(self, store: ObjectStore, ranker: str, version: int, rate: int | None = None) -> None:
        """Copy and verify one version, at most `rate` bytes a second (blocking; errors as of `download_version`).

        One whose graph does more than compute is no version of ours, whoever signed it: DataError. The manifest comes first: what is copied is known to be ours before a byte of it is there. A directory of that
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
            manifest = download_version(store, ranker, version, directory, rate, check_saved_model)
        except BaseException:
            if not directory.exists():
                self._manifest(ranker, version).unlink(missing_ok=True)
            raise
        self._open(ranker, version)
        self._write_manifest(manifest)  # it may have been signed again meanwhile
        self._count(ranker, version, self.verify(ranker, version))

    def _count(self, ranker: str, version: int, stamp: Stamp) -> None:
        with self._lock:
            self._found[ranker, version] = _Verified(stamp, time.monotonic())
            self._refused.discard((ranker, version))

    def _stamp(self, ranker: str, version: int) -> Stamp:
        found: list[tuple[str, int, int, int, int]] = []
        for path in (self.base_path(ranker) / str(version)).rglob("*"):
            try:
                seen = path.lstat()
            except FileNotFoundError:  # gone since it was listed: that is another stamp too
                continue
            if not stat.S_ISDIR(seen.st_mode):
                found.append((str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
        return frozenset(found)

    def _open(self, ranker: str, version: int) -> None:
        """The model server may run as another user."""
        directory = self.base_path(ranker) / str(version)
        open_to_others(directory)
        for above in (directory.parent, self.models):
            open_to_others(above, below=False)

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
        self.give_up(ranker, version)
        self._refused.discard((ranker, version))
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
