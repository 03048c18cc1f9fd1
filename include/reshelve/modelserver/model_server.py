"""The local model server: TensorFlow Serving's gRPC and REST API over real SavedModels, in one Python process.

For machines without Docker, for the gate and for tests. What a caller or an agent can see is TensorFlow Serving
2.20's; every known difference is in docs/reference/local-model-server.md.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reshelve.errors import ReshelveError
from reshelve.logs import logger

# Both are read when TensorFlow is imported: no lines about accelerators it may not use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from reshelve.modelserver.grpc_api import start_grpc
from reshelve.modelserver.local_server import CONFIG_FILE
from reshelve.modelserver.model_api import ModelApi
from reshelve.modelserver.rest_server import RestServer
from reshelve.modelserver.servable_manager import ServableManager
from reshelve.modelserver.servables import Servable, start_threads
from reshelve.modelserver.server_core import ServerCore
from reshelve.modelserver.server_metrics import ServerMetrics
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError
from reshelve.modelserver.text_proto import read_config, read_metrics_path
from reshelve.modelserver.warm_up import warm_up
from reshelve.settings import read_settings

T = TypeVar("T")

_GRACE_SECONDS = 2.0
_SWITCH_SECONDS = 0.001  # Python's own is five times as long


class StartError(ReshelveError):
    """The server cannot start from its model list. The code is TensorFlow Serving's, whatever the cause: text tells."""

    exit_code = 255


def serve(models: str, grpc_address: str, rest_address: str) -> None:
    """Serve the model list `<models>/models.config` until SIGTERM or SIGINT, then end the process with 0.

    Listens only when all loads of that list have ended, as TensorFlow Serving does. Raises StartError where there is no
    list, where it is wrong or where a model cannot be loaded, ConfigurationError for a wrong flag, TryAgainError where
    an address is taken.
    """
    started = time.monotonic()
    log = logger(part="model-server")
    options = read_settings(ServerOptions)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    path = Path(models).absolute() / CONFIG_FILE
    start_threads(options)
    _leave_imports_alone()
    metrics = ServerMetrics()
    core = ServerCore(ServableManager(lambda directory: _load(directory, options, metrics), options), options)
    rest: RestServer | None = None
    try:
        page = _starting(
            lambda: read_metrics_path(options.monitoring_config_file), options.monitoring_config_file
        )
        rest = RestServer(ModelApi(core, metrics), rest_address, options, page)
        core.start()
        _starting(lambda: core.reload(read_config(path), stop), str(path))
        if not stop.is_set():
            grpc_server = start_grpc(rest.api, grpc_address, options)
            rest.start()
            seconds = round(time.monotonic() - started, 1)
            log.info("serving", grpc=grpc_address, rest=rest_address, models=str(path), seconds=seconds)
            _until_stopped(core, path, stop, options.model_config_file_poll_wait_seconds)
            log.info("stopping")
            grpc_server.stop(_GRACE_SECONDS).wait()
    finally:
        if rest is not None:
            rest.stop()
        if not stop.is_set():
            core.close()  # else at once: it would wait for what still loads
    log.info("stopped")
    # Nothing is left to save, and taking TensorFlow's modules apart costs a second of processor time.
    sys.stderr.flush()
    os._exit(0)


def _leave_imports_alone() -> None:
    """Keep the collector of garbage off what the imports made: looking through it takes a tenth of a second.

    Threads also wait less long for the interpreter: a request passes through it some ten times.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)


def _load(directory: Path, options: ServerOptions, metrics: ServerMetrics) -> Servable:
    with metrics.load(str(directory)):
        servable = Servable.load(directory, options)
    if options.enable_model_warmup:
        try:
            warm_up(servable, directory)
        except BaseException:
            servable.close()
            raise
    return servable


def _starting(step: Callable[[], T], file: str) -> T:
    """What a step of the start gives, which reads `file`. Raises StartError."""
    try:
        return step()
    except ServingError as error:
        raise StartError(f"Failed to start server. Error: {error}", f"It was read in {file}.") from error


def _until_stopped(core: ServerCore, path: Path, stop: threading.Event, every: float) -> None:
    """Wait; with a poll interval, apply the file again each time, which undoes what gRPC reloaded."""
    while not stop.wait(every or None):
        try:
            core.reload(read_config(path), stop)
        except ServingError as error:
            logger(part="model-server").error("models.config was not applied", error=str(error))
