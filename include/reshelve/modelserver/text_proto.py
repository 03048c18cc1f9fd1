"""The files that a model server reads at its start, as text protos, and its words where they are none."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from reshelve.logs import logger
from reshelve.modelserver.serving_error import invalid, not_found
from reshelve.protocol.messages import model_server_config_pb2

METRICS_PATH = "/monitoring/prometheus/metrics"


def read_config(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """The model list. Raises ServingError where there is none: missing, empty or no such proto."""
    config = model_server_config_pb2.ModelServerConfig()
    _read(path, config)
    return config


def read_metrics_path(file: str) -> str | None:
    """Where a MonitoringConfig has the Prometheus page; None without a file, or where it is not enabled.

    Raises ServingError.
    """
    if not file:
        return None
    config = _monitoring_config()()
    _read(Path(file), config)
    prometheus = config.prometheus_config
    return str(prometheus.path or METRICS_PATH) if prometheus.enable else None


def _read(path: Path, message: Any) -> None:
    try:
        content = path.read_bytes()
        if not content:  # the server maps the file, and nothing cannot be mapped
            raise invalid(f"{path}; Invalid argument")
        text_format.Parse(content.decode(), message)
    except FileNotFoundError as error:
        raise not_found(f"{path}; No such file or directory") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        logger(part="model-server").error("no such text proto", path=str(path), problem=str(error))
        raise invalid(f"Invalid protobuf file: '{path}'") from error


@cache
def _monitoring_config() -> Any:
    """`tensorflow.serving.MonitoringConfig`, which the package of the API's messages lacks."""
    file = descriptor_pb2.FileDescriptorProto(
        name="reshelve/monitoring_config.proto", package="reshelve.serving", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=field.TYPE_BOOL, label=field.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL,
        type_name=".reshelve.serving.PrometheusConfig",
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("reshelve.serving.MonitoringConfig"))
