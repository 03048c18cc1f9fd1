"""Airflow for tests: a home of its own, the DAGs and plugins of this repository, and the real processes where asked for."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# Airflow reads these once, at its first import.
os.environ.update(
    AIRFLOW_HOME=tempfile.mkdtemp(prefix="airflow-tests-"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(PROJECT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(PROJECT / "plugins"),
)
sys.path.insert(0, str(PROJECT / "plugins"))


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository."""
    return PROJECT
