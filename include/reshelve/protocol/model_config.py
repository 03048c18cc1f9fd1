"""A model server's configuration: which versions of which models, and which labels point where.

Written as TensorFlow Serving's `ModelServerConfig` in protobuf text form, our models with the `specific` policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from google.protobuf import text_format

from reshelve.errors import DataError
from reshelve.files import open_to_others, write_whole
from reshelve.protocol.messages import model_server_config_pb2 as config_pb2

CONFIG_FILE = "models.config"


@dataclass(frozen=True)
class ModelEntry:
    """One ranker: its base path, the versions to hold, the labels."""

    name: str
    base_path: Path
    versions: frozenset[int]
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        if not set(self.labels.values()) <= self.versions:
            raise ValueError(f"{self.name}: a label points at a version that is not listed")

    def limited_to(self, versions: frozenset[int]) -> ModelEntry | None:
        """The entry without other versions and without labels that point at them; None where nothing is left."""
        kept = self.versions & versions
        labels = {label: version for label, version in self.labels.items() if version in kept}
        return ModelEntry(self.name, self.base_path, kept, labels) if kept else None

    @classmethod
    def of(cls, config: config_pb2.ModelConfig) -> ModelEntry:
        """From a message with the `specific` policy. Raises ValueError where a label points nowhere."""
        versions = frozenset(config.model_version_policy.specific.versions)
        return cls(config.name, Path(config.base_path), versions, dict(config.version_labels))


def to_message(
    entries: Iterable[ModelEntry], others: Iterable[config_pb2.ModelConfig] = ()
) -> config_pb2.ModelServerConfig:
    """The whole list, sorted by name: a reload replaces everything. `others`: models that are not ours, as they are."""
    message = config_pb2.ModelServerConfig()
    message.model_config_list.SetInParent()
    message.model_config_list.config.extend(others)
    for entry in sorted(entries, key=lambda e: e.name):
        config = message.model_config_list.config.add(
            name=entry.name, base_path=str(entry.base_path.absolute()), model_platform="tensorflow"
        )
        config.model_version_policy.specific.versions.extend(sorted(entry.versions))
        for label in sorted(entry.labels):
            config.version_labels[label] = entry.labels[label]
    return message


def parse_message(text: str) -> config_pb2.ModelServerConfig:
    """Raises DataError where the text is no configuration."""
    try:
        return text_format.Parse(text, config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise DataError(f"{CONFIG_FILE} is no model server configuration", str(error)) from error


def parse(text: str) -> dict[str, ModelEntry]:
    """Entries by name. Raises DataError where the text is no configuration."""
    try:
        return {config.name: ModelEntry.of(config) for config in parse_message(text).model_config_list.config}
    except ValueError as error:
        raise DataError(f"{CONFIG_FILE} is no model server configuration", str(error)) from error


def write_config(
    directory: Path,
    entries: Iterable[ModelEntry],
    others: Iterable[config_pb2.ModelConfig] = (),
    heading: str = "",
) -> None:
    """Replace `directory/models.config` at once: a server that polls it never reads half of it."""
    text = heading + text_format.MessageToString(to_message(entries, others))
    write_whole(directory / CONFIG_FILE, text, durable=True)
    open_to_others(directory / CONFIG_FILE)  # the model server may run as another user


def read_config(directory: Path) -> dict[str, ModelEntry]:
    """Entries of `directory/models.config`, none where it is missing. Raises DataError where it is damaged."""
    path = directory / CONFIG_FILE
    return parse(path.read_text(encoding="utf-8")) if path.is_file() else {}
