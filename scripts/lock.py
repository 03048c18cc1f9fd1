"""Write the lock anew: constraints.txt (versions) and locks/*.lock (versions with the digest of every file).

    make lock                          versions stay, but for what requirements.txt or TOOLS below now asks for
    make lock ARGS="--upgrade"         the newest versions that requirements.txt allows
    make lock ARGS="--upgrade-package duckdb"

Versions and digests are those of PyPI, read by uv; nothing is downloaded but torch's CPU build, which is not there: pip
fetches it from wherever it is told to look. Read the difference before you commit it: a digest that changed while its
version did not is an alarm.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LOCKS = PROJECT / "locks"

BUILD = ("cmake<4", "setuptools<81", "wheel", "packaging")
"""What builds Horovod: its CMake files and its setup.py know no newer ones."""
HOROVOD = "horovod==0.28.1"

_CUDA = re.compile(r"(nvidia-|cuda-|triton$)")
_UV = (
    "--quiet", "--no-annotate", "--no-header", "--generate-hashes",
    "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28",
)  # fmt: skip


@dataclass(frozen=True)
class Locked:
    """One package of a lock: its version, and the SHA-256 of each file that may be it."""

    name: str
    version: str
    digests: tuple[str, ...]

    def text(self) -> str:
        """As pip reads it."""
        return " \\\n    ".join(
            [f"{self.name}=={self.version}", *(f"--hash=sha256:{one}" for one in self.digests)]
        )


def read_lock(text: str) -> dict[str, Locked]:
    """The packages of a lock by their names, as PyPI writes them (`pyyaml`, `apache-airflow`)."""
    found = {}
    lines = [
        line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")
    ]
    for line in lines:
        requirement, *digests = line.split()
        name, _, version = requirement.partition("==")
        key = re.sub(r"[-_.]+", "-", name).lower()
        found[key] = Locked(key, version, tuple(one.removeprefix("--hash=sha256:") for one in digests))
    return found


def write_lock(name: str, about: str, packages: list[Locked]) -> None:
    """`locks/<name>.lock`, sorted."""
    body = "\n".join(one.text() for one in sorted(packages, key=lambda one: one.name))
    (LOCKS / f"{name}.lock").write_text(f"# {about} Made by `make lock`.\n{body}\n")


def resolve(wanted: str, versions: Path | None, *more: str) -> dict[str, Locked]:
    """What uv makes of these requirements; `versions`: a file whose versions are kept, where they are allowed."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "asked.in", Path(folder) / "answer.txt"
        asked.write_text(wanted)
        if versions is not None and versions.is_file():
            answer.write_text(versions.read_text())  # uv prefers what its own output had
        uv = Path(sys.executable).parents[1] / "supply" / "bin" / "uv"
        command = [uv, "pip", "compile", *_UV, *more, "--output-file", answer, asked]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit(78)
        return read_lock(answer.read_text())


def cpu_build(version: str) -> Locked:
    """torch's CPU build for this Python. Its digest stays once it is known."""
    path = LOCKS / "torch-cpu.lock"
    known = read_lock(path.read_text()).get("torch") if path.is_file() else None
    if known and known.version == f"{version}+cpu":
        return known
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, f"torch=={version}+cpu",
        ]  # fmt: skip
        if subprocess.run(command, check=False).returncode:
            sys.exit("lock: pip finds no CPU build of torch: set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS")
        (wheel,) = Path(folder).glob("*.whl")
        with wheel.open("rb") as opened:
            return Locked("torch", f"{version}+cpu", (file_digest(opened, "sha256").hexdigest(),))


def main() -> None:
    """Resolve, split by what is installed when, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true", help="newer versions of everything")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME")
    chosen = parser.parse_args()
    more = ["--upgrade"] if chosen.upgrade else [f"--upgrade-package={one}" for one in chosen.upgrade_package]

    LOCKS.mkdir(exist_ok=True)
    direct = (PROJECT / "requirements.txt").read_text().replace("-c constraints.txt\n", "")
    packages = resolve(direct, PROJECT / "constraints.txt", *more)
    cuda_only = {name for name in packages if _CUDA.match(name)}
    everywhere = [one for name, one in packages.items() if name not in cuda_only]
    (PROJECT / "constraints.txt").write_text(
        "# The version of every package of the environment, for `pip install -c`; locks/ has their digests. Made by `make lock`.\n"
        "# torch is named without a local version, so that the CPU build and the CUDA build of a GPU host both fit; no\n"
        "# CUDA-only package is listed.\n" + "".join(f"{one.name}=={one.version}\n" for one in everywhere)
    )

    first = resolve(f"torch=={packages['torch'].version}\nnumpy", PROJECT / "constraints.txt")
    for_torch = [packages[name] for name in first if name in packages and name not in cuda_only | {"torch"}]
    torch = packages["torch"]
    cpu, cuda = [cpu_build(torch.version)], [torch, *(packages[name] for name in cuda_only)]
    write_lock("torch-cpu", "torch's CPU build, and what it imports.", [*for_torch, *cpu])
    write_lock(
        "torch-cuda",
        "torch's CUDA build (elsewhere PyPI's only one), and what it imports.",
        [*for_torch, *cuda],
    )
    rest = [one for one in everywhere if one.name != "torch"]
    write_lock("packages", "Every package of the environment but torch, and Horovod, which is built.", rest)

    build = resolve("\n".join(BUILD), LOCKS / "build.lock", *more)
    write_lock("build", "What builds Horovod.", list(build.values()))
    write_lock("horovod", "Horovod's source release.", list(resolve(HOROVOD, None, "--no-deps").values()))
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    beside = ("--constraint", str(PROJECT / "constraints.txt"))
    fab = resolve("\n".join(extras["fab"]), LOCKS / "fab.lock", *beside, *more)
    write_lock(
        "fab",
        "What the FAB auth manager and OpenID Connect bring beside the environment.",
        [one for name, one in fab.items() if name not in packages],
    )
    tools = resolve("\n".join(extras["supply"]), LOCKS / "supply.lock", *more)
    write_lock(
        "supply", "What `make lock` and `make sbom` use, in an environment of its own.", list(tools.values())
    )


if __name__ == "__main__":
    main()
