"""Run the local model server as a child for the length of a `with` block: the gate, the packaging and tests use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reshelve.errors import EXIT_CONFIGURATION, ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.processes import free_port, start, stop_group

CONFIG_FILE = "models.config"
MONITORING_FILE = "monitoring.config"
MONITORING = "prometheus_config { enable: true }\n"
_START_SECONDS = 180.0  # importing TensorFlow alone takes ten on a busy machine


@dataclass(frozen=True)
class Addresses:
    """Where a model server listens: `host:port` each."""

    grpc: str
    rest: str


def model_list(base_paths: Mapping[str, Path]) -> str:
    """A models.config that serves the newest version of each base path."""
    models = "".join(
        f'  config {{ name: {_quoted(name)} base_path: {_quoted(str(path))} model_platform: "tensorflow" }}\n'
        for name, path in base_paths.items()
    )
    return f"model_config_list {{\n{models}}}\n"


@contextmanager
def running_model_server(
    models: Mapping[str, Path],
    *,
    options: Mapping[str, object] | None = None,
    seconds: float = _START_SECONDS,
) -> Iterator[Addresses]:
    """A model server of its own on free ports, every model AVAILABLE; stopped with its process group at the end.

    `models`: name → base path (a directory of integer-named versions), or a SavedModel directory itself, served as
    version 1. `options`: fields of `ServerOptions`. Raises DataError with the server's own text if a model cannot be
    loaded, TryAgainError if the server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="reshelve-model-server-") as temporary:
        directory = Path(temporary)
        base_paths = {
            name: _base_path(name, Path(path).absolute(), directory) for name, path in models.items()
        }
        (directory / CONFIG_FILE).write_text(model_list(base_paths), encoding="utf-8")
        (directory / MONITORING_FILE).write_text(MONITORING, encoding="utf-8")
        flags = {"monitoring_config_file": directory / MONITORING_FILE, **(options or {})}
        addresses = Addresses(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
        log = directory / "log"
        process = start(
            [sys.executable, "-m", "reshelve.cli", "model-server", "--models", temporary, "--grpc", addresses.grpc,
             "--rest", addresses.rest],
            log,
            env={"RESHELVE_DIE_WITH_PARENT": "1", **_environment(flags)},
        )  # fmt: skip
        try:
            _wait_until_serving(process, addresses, models, log, seconds)
            yield addresses
        finally:
            stop_group(process.pid)
            process.wait()


def _wait_until_serving(
    process: subprocess.Popen[bytes], addresses: Addresses, models: Iterable[str], log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not _serves(addresses.rest, models):
        if process.poll() is not None:
            raise _failure(process.returncode, log)
        if time.monotonic() > deadline:
            raise TryAgainError(f"the model server was not ready within {seconds:g} s", _tail(log))
        time.sleep(0.05)


def _serves(rest: str, models: Iterable[str]) -> bool:
    """Whether a version of every model is AVAILABLE; without any model, whether the server answers."""
    try:
        return all(_is_available(rest, model) for model in models) and _answers(rest)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _is_available(rest: str, model: str) -> bool:
    url = f"http://{rest}/v1/models/{urllib.parse.quote(model, safe='')}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        versions = json.load(answer)["model_version_status"]
    return any(version["state"] == "AVAILABLE" for version in versions)


def _answers(rest: str) -> bool:
    """Whether it has an answer to a question that it always refuses."""
    try:
        with urllib.request.urlopen(f"http://{rest}/v1/models", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True


def _failure(exit_code: int, log: Path) -> ReshelveError:
    headline = next(
        (
            line.removeprefix("reshelve: ")
            for line in _tail(log).splitlines()
            if line.startswith("reshelve: ")
        ),
        f"the model server stopped with exit code {exit_code}",
    )
    kind: type[ReshelveError] = ConfigurationError if exit_code == EXIT_CONFIGURATION else TryAgainError
    if "did not become available" in headline:  # whatever keeps the server from its start has one exit code
        kind = DataError
    return kind(headline, _tail(log))


def _tail(log: Path, characters: int = 4000) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-characters:] if log.is_file() else ""


def _base_path(name: str, path: Path, directory: Path) -> Path:
    if not path.is_dir():
        raise DataError(f"{path} is not a directory: model {name} has nothing to serve")
    if (path / "saved_model.pb").is_file():
        base = directory / name
        base.mkdir()
        (base / "1").symlink_to(path)
        return base
    if not any(child.name.isdigit() for child in path.iterdir()):
        raise DataError(f"{path} has no version of model {name}: expected a directory named by an integer")
    return path


def _environment(options: Mapping[str, object]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.startswith("RESHELVE_SERVING_")}
    return {**kept, **{f"RESHELVE_SERVING_{name.upper()}": str(value) for name, value in options.items()}}


def _quoted(text: str) -> str:
    return json.dumps(text)
