"""Where things are on this machine: read once from `RESHELVE_*` environment variables.

S3 credentials and endpoint are boto3's own (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …), so that one
set of variables serves every tool.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from reshelve.errors import ConfigurationError

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

PROJECT_VARIABLE = "RESHELVE_PROJECT"
PROJECT = Path(os.environ.get(PROJECT_VARIABLE) or Path(__file__).resolve().parents[2])
"""The folder of the project. A process that runs a copy of its code (`pinned_code`) is told where that is."""


def _no_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError("expected a directory, there is a file")
    return path


class Settings(BaseSettings):
    """Paths and addresses; every field is the environment variable `RESHELVE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="RESHELVE_", frozen=True, extra="ignore")

    home: Annotated[Path, AfterValidator(_no_file)] = Field(
        PROJECT / ".reshelve", description="Local state: work directories, services, logs."
    )
    bucket: str = Field(
        "reshelve", description="The S3 bucket of partitions, runs, versions and deployments."
    )
    rankers_dir: Path = Field(PROJECT / "include" / "rankers", description="One YAML file per ranker.")
    clickstreams_dir: Path = Field(
        PROJECT / "include" / "clickstreams", description="One mapping file per clickstream source."
    )
    bases: Path = Field(
        PROJECT / "include" / "bases.yaml",
        description="The list of base models that the trigger form of a night offers.",
    )
    expectations_dir: Path = Field(PROJECT / "include" / "expectations", description="Validation rules.")
    data: Path = Field(
        PROJECT.parent / "shared" / "data",
        description="Directory of data that may not be redistributed (for tests and benchmarks).",
    )
    pseudonym_keys: SecretStr = Field(
        SecretStr(""),
        description="Landing replaces user and session ids by a keyed hash: YYYY-MM-DD:SECRET, with the first "
        "day of the key; list several, separated by commas, to rotate. Empty: ids are kept.",
    )
    raw_max_gigabytes: float = Field(
        64,
        gt=0,
        description="The most that one packed raw or landed file (gzip, Parquet) may hold unpacked, in GiB.",
    )
    raw_max_ratio: float = Field(
        200,
        gt=1,
        description="The most that such a file may grow when it is unpacked, as a multiple of its size; files that hold at most 256 MiB may grow more.",
    )
    validation_engine: str = Field(
        "duckdb",
        description="The validation engine: duckdb, pandas, or spark (experimental; needs the extra `spark` and Java 17).",
    )
    model_server: str = Field("127.0.0.1:8500", description="gRPC address of the model server.")
    model_server_rest: str = Field("127.0.0.1:8501", description="REST address of the model server.")
    gateway_tokens_file: Path | None = Field(
        None,
        description="The file of hashed tokens that `reshelve gateway` accepts and `reshelve tokens` writes; empty: gateway/tokens.json in the home.",
    )
    signatures: Literal["required", "off"] = Field(
        "required",
        description="required: only what a trusted key signed is loaded and followed. off: unsigned versions and moves too.",
    )
    signing_key: Path | None = Field(
        None,
        description="The private key that signs published versions; empty: keys/signing.pem in the home.",
    )
    gate_key: Path | None = Field(
        None,
        description="The private key that signs the gate's verdicts; empty: keys/gate.pem in the home.",
    )
    release_key: Path | None = Field(
        None,
        description="The private key that signs the moves of releases and of the watch; empty: keys/release.pem in the home.",
    )
    person_key: Path | None = Field(
        None,
        description="The private key that signs people's decisions: approve, withdraw, rollback, allow a held version; "
        "empty: keys/person.pem in the home.",
    )
    trusted_keys: Path | None = Field(
        None,
        description="The directory of trusted public keys; empty: keys/trusted in the home.",
    )
    graph_operations: str = Field(
        "",
        description="TensorFlow operations that versions may have beyond the list of those that only compute, separated by "
        "commas: for kinds of your own. Agents need the same ones as packaging.",
    )
    release_lease_seconds: float = Field(
        120,
        gt=0,
        description="A release without a heartbeat for this many seconds is withdrawn by the next one.",
    )
    copy_megabytes_per_second: float = Field(
        50,
        ge=0,
        description="Maximum copying speed of an agent while its server has another version; 0: unlimited.",
    )
    alert_webhook: SecretStr = Field(
        SecretStr(""),
        description="URL that receives alerts and failed tasks as JSON with subject and text, the form chat tools accept.",
    )
    alert_email: str = Field(
        "",
        description="Comma-separated e-mail addresses for alerts; sent through Airflow's connection smtp_default.",
    )
    alert_slack: str = Field(
        "",
        description="An Airflow connection of type slackwebhook for alerts; needs the extra `slack`.",
    )
    alert_teams: str = Field(
        "",
        description="An Airflow connection of type apprise, for a Teams channel, for alerts; needs the extra `teams`.",
    )
    mlflow_tracking_uri: SecretStr = Field(
        SecretStr(""),
        description="URL of an MLflow server to send every night to; empty: MLFLOW_TRACKING_URI, or none.",
    )
    job_timeout_minutes: int = Field(120, description="Time limit of one stage in minutes.")

    @property
    def work(self) -> Path:
        """Local work directories of runs (a cache: everything that matters is on S3)."""
        return self.home / "work"

    @property
    def tracking_uri(self) -> str:
        """The MLflow server that gets every night, by our setting or by MLflow's own; it may hold a password. Empty: none."""
        return self.mlflow_tracking_uri.get_secret_value() or os.environ.get("MLFLOW_TRACKING_URI", "")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. Raises ConfigurationError naming each variable that is wrong."""
    return read_settings(Settings)


def read_settings(form: type[SettingsT], **known: Any) -> SettingsT:
    """A form of settings, from the environment and what is `known` already.

    Raises ConfigurationError naming each variable that is wrong, what it is and what was expected.
    """
    try:
        return form(**known)
    except ValidationError as error:
        prefix = form.model_config["env_prefix"]
        problems = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            secret = form.model_fields[name].annotation is SecretStr
            given = "" if secret else f"={problem['input']}"
            problems.append(f"{prefix}{name.upper()}{given}: {problem['msg'].removeprefix('Value error, ')}")
        raise ConfigurationError(problems[0], "\n".join(problems[1:])) from error
