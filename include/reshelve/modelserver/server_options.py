"""The flags of the local model server, named after TensorFlow Serving's, set as `RESHELVE_SERVING_<FLAG>`."""

from __future__ import annotations

import os

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def four_per_processor() -> int:
    """Four times the processors that this process may use."""
    return 4 * len(os.sched_getaffinity(0))


class ServerOptions(BaseSettings):
    """Defaults are what this project gives `tensorflow_model_server`; see docs/reference/local-model-server.md."""

    model_config = SettingsConfigDict(env_prefix="RESHELVE_SERVING_", frozen=True, extra="ignore")

    file_system_poll_wait_seconds: float = Field(
        1.0, gt=0, description="Seconds between scans of the base paths."
    )
    model_config_file_poll_wait_seconds: float = Field(
        0.0, ge=0, description="Seconds between rereads of models.config; 0: read only at start."
    )
    allow_version_labels_for_unavailable_models: bool = Field(
        True,
        description="Allow a new label to point at a version that is not loaded yet (needed for cold starts).",
    )
    max_num_load_retries: int = Field(1, ge=0, description="Retries after the first failed load.")
    load_retry_interval_seconds: float = Field(0.5, ge=0, description="Seconds between those retries.")
    num_load_threads: int = Field(
        2, ge=1, description="Versions loaded concurrently, so that a bad version does not block a good one."
    )
    load_niceness: int = Field(
        19, ge=0, le=19, description="Niceness of a load while another version serves."
    )
    load_patience_seconds: float = Field(
        30.0, ge=0, description="Seconds such a load runs in the idle scheduling class."
    )
    grpc_max_threads: int = Field(
        64,
        ge=2,
        description="gRPC threads. One listens, so N threads serve N − 1 requests at once; more are refused.",
    )
    grpc_socket_path: str = Field(
        "", description="Also listen for gRPC on this Unix socket; empty: on the address alone."
    )
    admin_on_socket_only: bool = Field(
        False, description="Take new model lists on that socket only; on the address they are refused."
    )
    rest_api_num_threads: int = Field(
        default_factory=four_per_processor,
        ge=2,
        description="REST threads. One listens, so N threads serve N − 1 requests at once; more wait.",
    )
    rest_api_timeout_in_ms: int = Field(
        30_000, ge=0, description="Time limit of a REST request in milliseconds; then it answers 504."
    )
    monitoring_config_file: str = Field(
        "", description="File with a MonitoringConfig text proto; empty: no Prometheus page."
    )
    tensorflow_intra_op_parallelism: int = Field(
        0, ge=0, description="Threads in one operation; 0: TensorFlow decides."
    )
    tensorflow_inter_op_parallelism: int = Field(
        0, ge=0, description="Operations run concurrently; 0: TensorFlow decides."
    )
    enable_model_warmup: bool = Field(
        True, description="Replay assets.extra/tf_serving_warmup_requests when loading."
    )

    @model_validator(mode="after")
    def _somebody_may(self) -> ServerOptions:
        if self.admin_on_socket_only and not self.grpc_socket_path:
            raise ValueError(
                "admin_on_socket_only without grpc_socket_path: nobody could give it a model list"
            )
        return self
