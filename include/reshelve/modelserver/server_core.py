"""The server without its wire: the model list, its labels, and the versions found under the base paths."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reshelve.logs import logger
from reshelve.modelserver.servable_manager import ServableManager, ServableState
from reshelve.modelserver.servables import Servable
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import failed_precondition, invalid
from reshelve.protocol.messages import model_pb2
from reshelve.protocol.messages import model_server_config_pb2 as config_pb2

_VERSION = re.compile(r"[+-]?\d+")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9.]*://")
_LARGEST_VERSION = 2**63 - 1
_PLATFORM = "tensorflow"


class ServerCore:
    """Accepts model lists, keeps versions aspired as the file system says, and resolves what a request names."""

    def __init__(self, manager: ServableManager, options: ServerOptions) -> None:
        self.manager = manager
        self._options = options
        self._config = config_pb2.ModelServerConfig()
        self._labels: dict[str, dict[str, int]] = {}
        self._sources: dict[str, config_pb2.ModelConfig] = {}
        self._reload_lock = threading.Lock()
        self._source_lock = threading.Lock()
        self._poll_now = threading.Event()
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll_forever, name="poll", daemon=True)
        self._last_problem = ""
        self._started = False  # has had its first list

    def start(self) -> None:
        """Begin to watch the base paths."""
        self._poller.start()

    def close(self) -> None:
        """Stop watching, and unload everything."""
        self._stopping.set()
        self._poll_now.set()
        if self._poller.is_alive():
            self._poller.join()
        self.manager.close()

    def reload(self, config: config_pb2.ModelServerConfig, stop: threading.Event | None = None) -> None:
        """Replace the whole model list; returns when each *new* model has a version AVAILABLE.

        One at a time: a second reload waits for the first, however long its models load. The order of the checks is
        TensorFlow Serving's, with its consequences: a list refused for its platform has already replaced the labels.
        The first list also waits for every load that it began. Raises ServingError.
        """
        with self._reload_lock:
            if config.WhichOneof("config") is None:
                if self._config.WhichOneof("config") is not None:
                    raise failed_precondition(
                        "Cannot transition to requested config. It is only legal to transition from one "
                        "ModelConfigList to another."
                    )
                return
            if config.WhichOneof("config") != "model_config_list":
                raise invalid("Missing custom_model_config_loader in ServerCore Options")
            _validate(config.model_config_list)
            _validate_platforms_stay(self._config.model_config_list, config.model_config_list)
            self._config = config
            self._labels = self._label_map(config.model_config_list)
            _validate_platforms_known(config.model_config_list)
            since = self.manager.sequence
            new = self._change_sources({model.name: model for model in config.model_config_list.config})
            first, self._started = not self._started, True
            try:
                self.manager.wait_until_available(new, since, "servable" if first else "model", stop)
            finally:
                if first:
                    self.manager.finish_first_loads(stop)

    @contextmanager
    def lend(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """The version a request names: by number, by label, or the newest. Raises ServingError."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        number: int | None = None
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            number = spec.version.value
        elif choice == "version_label":
            number = self._labels.get(spec.name, {}).get(spec.version_label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        with self.manager.lend(spec.name, number) as lent:
            yield lent

    def _label_map(self, models: config_pb2.ModelConfigList) -> dict[str, dict[str, int]]:
        labels: dict[str, dict[str, int]] = {}
        for model in models.config:
            states = {status.number: status.state for status in self.manager.statuses(model.name)}
            for label, number in model.version_labels.items():
                now = self._labels.get(model.name, {}).get(label)
                allowed = self._options.allow_version_labels_for_unavailable_models and now in (None, number)
                if not allowed and states.get(number) is not ServableState.AVAILABLE:
                    raise failed_precondition(
                        f"Request to assign label to version {number} of model {model.name}, which is not currently "
                        "available for inference"
                    )
                labels.setdefault(model.name, {})[label] = number
        return labels

    def _change_sources(self, sources: dict[str, config_pb2.ModelConfig]) -> set[str]:
        """Watch these models from now on; the names that were not watched before."""
        with self._source_lock:
            gone, new = set(self._sources) - set(sources), set(sources) - set(self._sources)
            self._sources = sources
            for name in gone:
                self.manager.aspire(name, {})
        self._poll_now.set()
        return new

    def _poll_forever(self) -> None:
        while not self._stopping.is_set():
            self._poll_now.clear()
            with self._source_lock:
                self._poll()
            self._poll_now.wait(self._options.file_system_poll_wait_seconds)

    def _poll(self) -> None:
        """Aspire what is there. One base path that cannot be listed postpones all models, as in TensorFlow Serving."""
        found: dict[str, dict[int, Path]] = {}
        for name, source in self._sources.items():
            try:
                found[name] = _aspired(source)
            except OSError as error:
                self._report(
                    f"Could not find base path {source.base_path} for servable {name} with error {error}"
                )
                return
            if not found[name]:
                self._report(f"No versions of servable {name} found under base path {source.base_path}")
        for name, versions in found.items():
            self.manager.aspire(name, versions)
        if all(found.values()):
            self._last_problem = ""

    def _report(self, problem: str) -> None:
        if problem != self._last_problem:
            self._last_problem = problem
            logger(part="model-server").warning(problem)


def _aspired(source: config_pb2.ModelConfig) -> dict[int, Path]:
    """The versions under a base path that the policy wants. Raises OSError where it cannot be listed."""
    found = {
        int(child.name): child
        for child in sorted(Path(source.base_path).iterdir())
        if _VERSION.fullmatch(child.name) and abs(int(child.name)) <= _LARGEST_VERSION
    }
    policy = source.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return found
    if choice == "specific":
        return {number: path for number, path in found.items() if number in set(policy.specific.versions)}
    newest = sorted(found, reverse=True)[: max(policy.latest.num_versions, 1)]
    return {number: found[number] for number in newest}


def _platform(model: config_pb2.ModelConfig) -> str:
    if model.model_type:
        if model.model_platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                "ModelServerConfig::model_platform."
            )
        if model.model_type != 1:
            raise invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
        return _PLATFORM
    if not model.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
    return str(model.model_platform)


def _validate(models: config_pb2.ModelConfigList) -> None:
    names: set[str] = set()
    for model in models.config:
        if model.name in names:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in models.config:
        if not model.base_path.startswith("/") and not _SCHEME.match(model.base_path):
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )


def _validate_platforms_stay(old: config_pb2.ModelConfigList, new: config_pb2.ModelConfigList) -> None:
    before = {model.name: _platform(model) for model in old.config}
    for model in new.config:
        if model.name in before and _platform(model) != before[model.name]:
            raise invalid(
                f"Illegal to change a model's platform. For model {model.name} platform was {before[model.name]} and "
                f"new platform requested is {_platform(model)}"
            )


def _validate_platforms_known(models: config_pb2.ModelConfigList) -> None:
    for model in models.config:
        if _platform(model) != _PLATFORM:
            raise invalid(f"Model {model.name} requests unsupported platform {_platform(model)}")
