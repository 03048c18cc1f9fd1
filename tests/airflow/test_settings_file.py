"""airflow_settings.yaml: read strictly, applied with Airflow's own commands, without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reshelve.config.yaml_models import load_form
from reshelve.errors import ConfigurationError
from reshelve_airflow.settings_file import SettingsFile

FILE = """
airflow:
  connections:
    - {conn_id: shop, conn_type: http, conn_host: shop.example, conn_extra: {timeout: 3}}
  pools:
    - {pool_name: accelerator, pool_slot: 2, pool_description: two, pool_include_deferred: true}
  variables:
    - {variable_name: greeting, variable_value: hello}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("timeout: 3", "password: x", "looks like a secret", id="a secret"),
        pytest.param("pool_slot: 2", "slots: 2", "pool_slot", id="a wrong key"),
        pytest.param("conn_host: shop.example", "conn_password: x", "conn_password", id="a password"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigurationError, match=said):
        load_form(SettingsFile, path)


@pytest.mark.slow
def test_it_is_applied_to_a_real_database_and_again(tmp_path: Path, project: Path) -> None:
    path = tmp_path / "settings.yaml"
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow"), "PYTHONPATH": str(project / "plugins")}

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("airflow", "db", "migrate")
    for slots in (2, 3):
        path.write_text(FILE.replace("pool_slot: 2", f"pool_slot: {slots}"))
        assert "pools: accelerator" in command("reshelve_airflow.settings_file", str(path))
    pools = json.loads(command("airflow", "pools", "list", "-o", "json").splitlines()[-1])
    found = {pool["pool"]: pool for pool in pools}["accelerator"]
    assert (str(found["slots"]), str(found["include_deferred"])) == ("3", "True")
    assert "hello" in command("airflow", "variables", "get", "greeting")
    assert "shop.example" in command("airflow", "connections", "get", "shop", "-o", "json")
