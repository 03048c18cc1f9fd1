"""models.config: what a model server starts from. Ours in it are what could be loaded here; what is others' stays.

The file is not what the server is told: a reload may name a version that nobody has loaded yet, this file never does. A
server that cannot load what its file names ends at every start.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from reshelve.agent.disk import foreign_folder, has_manifest
from reshelve.errors import ConfigurationError, DataError
from reshelve.files import open_to_others
from reshelve.logs import logger
from reshelve.protocol.messages import model_server_config_pb2 as config_pb2
from reshelve.protocol.model_config import CONFIG_FILE, ModelEntry, parse_message, write_config

HEADING = (
    "# Written by the agent of Reshelve. Models of others may be added; the agent keeps them as they are.\n"
)

Others = tuple[config_pb2.ModelConfig, ...]


class StartFile:
    """The file of one models directory. It is read again when somebody else has changed it."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._path = models / CONFIG_FILE
        self._seen: tuple[int, int, int] | None = None
        self._pending: tuple[int, int, int] | None = None
        self._damaged = False
        self.ours: dict[str, ModelEntry] = {}
        self.others: Others = ()

    def start(self) -> None:
        """Read it. Raises ConfigurationError where what is others' cannot be kept: nothing is written then."""
        if not self._path.is_file() and (folder := foreign_folder(self._models)) is not None:
            raise ConfigurationError(
                f"{folder} holds versions that are not Reshelve's, and no {CONFIG_FILE} says how they are served",
                "a server that has them would lose them: list them in that file, or give the agent another directory (--models)",
            )
        try:
            self._read()
        except DataError as error:
            if not self._is_headed():
                raise ConfigurationError(
                    f"{self._path}: not a model list of Reshelve's agent, and not one that it could keep",
                    f"{error.headline}: {error.detail}\nfix it, or give the agent its own directory (--models)",
                ) from error
            logger().warning("models.config is damaged, written anew", problem=str(error))
            self.ours, self.others, self._damaged, self._seen = {}, (), True, self._stamp()

    def refresh(self) -> bool:
        """Read it again where it is not as it was; whether models of others have changed.

        Only where it is the same at two looks: somebody may be writing it. A damaged one changes nothing; where it still
        begins as ours it is put aside and written anew, as no server could start from it.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        if stamp != self._pending:
            self._pending = stamp
            return False
        before = self.others
        try:
            self._read()
        except DataError as error:
            self._seen, self._damaged = stamp, True
            logger().error("models.config was damaged by somebody else", problem=str(error))
        return before != self.others

    def write(self, entries: dict[str, ModelEntry]) -> None:
        """Make it name these entries of ours beside the others; untouched where it does, or where somebody writes it.

        Raises OSError where the disk refuses, or somebody put there what is no model list.
        """
        if entries == self.ours and self._path.is_file() and not self._damaged:
            open_to_others(self._path)
            return
        if self._stamp() != self._seen:
            return  # the next looks read it first
        if self._damaged:
            if not self._is_headed():
                raise OSError(f"{self._path} is no model list any more: mend it")
            shutil.copyfile(self._path, self._path.with_name(f".{CONFIG_FILE}.damaged"))
        write_config(self._models, entries.values(), self.others, HEADING)
        self.ours, self._seen, self._damaged = dict(entries), self._stamp(), False

    def names_of_others(self) -> frozenset[str]:
        """Names that cannot be rankers of ours here: another's model has the name, or the folder."""
        folders = (Path(config.base_path) for config in self.others)
        taken = (folder.name for folder in folders if folder.parent == self._models)
        return frozenset([*(config.name for config in self.others), *taken])

    def to_tell(self) -> Others:
        """The models of others that a server can be told of: one whose base path is missing would stop all loads."""
        return tuple(c for c in self.others if "://" in c.base_path or Path(c.base_path).is_dir())

    def _read(self) -> None:
        if not self._path.is_file():
            self.ours, self.others, self._seen = {}, (), None
            return
        stamp = self._stamp()
        try:
            message = parse_message(self._path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{CONFIG_FILE} is no model server configuration", str(error)) from error
        if message.WhichOneof("config") == "custom_model_config":
            raise DataError(f"{CONFIG_FILE} has a custom_model_config", "expected a model_config_list")
        found: Iterable[config_pb2.ModelConfig] = message.model_config_list.config
        headed = self._is_headed()
        ours, others = {}, []
        for config in found:
            if self._is_ours(config, headed):
                try:
                    ours[config.name] = ModelEntry.of(config)
                except ValueError as error:
                    raise DataError(f"{CONFIG_FILE} contradicts itself", str(error)) from error
            else:
                others.append(config)
        self.ours, self.others, self._seen = ours, tuple(others), stamp

    def _is_ours(self, config: config_pb2.ModelConfig, headed: bool) -> bool:
        """In our directory, by number, and with our manifest; or nothing of it is there, and the file was ours."""
        folder = self._models / config.name
        if Path(config.base_path) != folder or not config.model_version_policy.HasField("specific"):
            return False
        versions = config.model_version_policy.specific.versions
        if any(has_manifest(folder, version) for version in versions):
            return True
        return headed and not any((folder / str(version)).exists() for version in versions)

    def _is_headed(self) -> bool:
        with self._path.open("rb") as handle:
            return handle.read(len(HEADING)) == HEADING.encode()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
