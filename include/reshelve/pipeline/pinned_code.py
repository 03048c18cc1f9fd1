"""The code that a night began with: a copy in the work directory, which its later stages run whatever is deployed meanwhile.

Only copies that this machine made of its own files are run. Nothing that lies in the object store is: who may write there
must not be able to run code here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from reshelve.errors import TryAgainError
from reshelve.kept import forget_unused
from reshelve.settings import PROJECT, PROJECT_VARIABLE

_PACKAGE = "reshelve"
_COPIES = (
    ".code"  # below the work directory, and the link to one of them in a run's: no ranker has such a name
)


class OtherCodeError(Exception):
    """This process runs other code than the night began with: `code` is the copy to run instead."""

    def __init__(self, code: Path) -> None:
        super().__init__(f"run it again from {code}")
        self.code = code

    def run_again(self) -> NoReturn:
        """Become the same command, of that code. The process id, its group and its open files stay."""
        sys.stdout.flush()
        sys.stderr.flush()
        command = [sys.executable, "-m", "reshelve.cli", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **environment(self.code)})


def environment(code: Path) -> dict[str, str]:
    """The variables with which a process, and all that it starts, imports that copy, and still finds the project's files."""
    found = [str(code), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, found)),
        "PYTHONSAFEPATH": "1",  # a checkout that happens to be the working directory does not come first
        PROJECT_VARIABLE: str(PROJECT),
    }


def digest_here() -> str:
    """The digest of the files that this process imports from; see `digest_of`."""
    return digest_of(_imported())


def deployed_digest() -> str:
    """The digest of what is deployed now, also for a process that runs a copy."""
    return digest_of(PROJECT / "include" / _PACKAGE if runs_copy() else _imported())


def runs_copy() -> bool:
    """Whether this process imports a copy."""
    return bool(os.environ.get(PROJECT_VARIABLE))


def digest_of(package: Path) -> str:
    """16 hex digits of the sha256 over a package's files, templates included: the name of its copy. Empty where it is gone."""
    return _digest(_files(package)) if package.is_dir() else ""


def keep_code(run: Path) -> str:
    """Copy the code of this process to the work directory, where it is not yet, for the run of that directory; its digest.

    Raises TryAgainError where the files change while they are read.
    """
    files = _files(_imported())
    digest = _digest(files)
    if digest != digest_here():
        raise TryAgainError("the code changes right now", "a deployment is under way; a retry takes it whole")
    copies = run.parents[2] / _COPIES
    copy = copies / digest
    if not copy.is_dir():
        copies.mkdir(parents=True, exist_ok=True)
        forget_unused(copies)
        partial = copies / f".{digest}.{os.getpid()}.partial"
        for name, body in files.items():
            path = partial / _PACKAGE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        try:
            partial.rename(copy)
        except OSError:  # another night made it meanwhile
            shutil.rmtree(partial)
            if not copy.is_dir():
                raise
    os.utime(copy)
    _link(run / _COPIES, copy)
    return digest


def kept_code(run: Path) -> Path | None:
    """The copy that a run's directory names; None where this machine has none (any more)."""
    copy = (run / _COPIES).resolve()
    return copy if (copy / _PACKAGE / "cli.py").is_file() else None


def packages() -> dict[str, str]:
    """Installed packages and their versions, and Python's own: what a copy does not hold."""
    found = {"python": sys.version.split()[0]}
    for place in sys.path:
        for info in Path(place or ".").glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(name, version)
    return found


@lru_cache(maxsize=1)
def _imported() -> Path:
    return Path(__file__).resolve().parents[1]


def _files(package: Path) -> dict[str, bytes]:
    """Name → bytes. What an editor or a tool hides there, and what Python compiled, is no part of it."""
    found = {}
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            found[name.as_posix()] = path.read_bytes()
    return found


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, body in files.items():
        digest.update(f"{name}\0{len(body)}\0".encode() + body)
    return digest.hexdigest()[:16]


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f"{link.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)
