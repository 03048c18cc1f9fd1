"""A shop for end-to-end tests: the whole platform on free ports, a small ranker file, and the public sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from reshelve.platform.airflow_client import AirflowClient
from reshelve.platform.configuration import Machine, Ports
from reshelve.platform.supervisor import SUPERVISORS
from reshelve.processes import free_port
from reshelve.settings import PROJECT
from reshelve.store.objects import ObjectStore

# A night small enough to be run many times on two cores; everything else is the real ranker file's.
SMALL = {
    "data": {"window_days": 14, "catalogue_days": 14},
    "examples": {"max_examples": 600},
    "model": {"max_length": 32, "layers": 2},
    "training": {"max_minutes": 2, "checkpoint_seconds": 2},
    "tuning": {"trials": 2, "parallel": 2, "max_minutes": 2},
    "compression": {"calibration_examples": 32},
    "gates": {"max_queries": 200, "champion_tolerance": 0.05},
}


class Shop:
    """One home directory with its platform; commands run in child processes with this shop's environment."""

    def __init__(self, home: Path, rankers: Path) -> None:
        self.home = home
        names = ("airflow_port", "s3_port", "postgres_port", "grpc_port", "rest_port")
        self.ports = Ports(**{name: free_port() for name in names})
        self.machine = Machine(home, self.ports)
        document = yaml.safe_load((PROJECT / "include" / "rankers" / "recommend.yaml").read_text())
        for section, values in SMALL.items():
            document[section].update(values)
        rankers.mkdir(parents=True)
        (rankers / "recommend.yaml").write_text(yaml.safe_dump(document))
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AWS_", "RESHELVE_", "AIRFLOW"))
        }
        self.environment = {
            **clean,
            "RESHELVE_HOME": str(home),
            "RESHELVE_RANKERS_DIR": str(rankers),
            **{f"RESHELVE_{name.upper()}": str(port) for name, port in self.ports.model_dump().items()},
        }

    def command(self, *arguments: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
        """`reshelve …` on this shop."""
        return subprocess.run(
            [sys.executable, "-m", "reshelve.cli", *arguments],
            env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def json(self, *arguments: str) -> dict[str, Any]:
        """The result of a verb that must go well."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout))

    def airflow(self, *arguments: str) -> str:
        """`airflow …` on this shop."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("airflow")), *arguments],
            env={**self.environment, **self.machine.environment()},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """`reshelve …` in the background, its output in `log`."""
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "reshelve.cli", *arguments],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def client(self) -> AirflowClient:
        """Airflow's REST API as its administrator."""
        return AirflowClient(self.machine.airflow_url, "admin", self.machine.secrets.passwords["admin"])

    def store(self) -> ObjectStore:
        """The shop's bucket."""
        import boto3

        reach = self.machine.environment()
        client = boto3.client(
            "s3", endpoint_url=reach["AWS_ENDPOINT_URL"], aws_access_key_id=reach["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=reach["AWS_SECRET_ACCESS_KEY"], region_name=reach["AWS_DEFAULT_REGION"],
        )  # fmt: skip
        return ObjectStore("reshelve", client)

    def pid(self, service: str) -> int:
        """The process of one of the platform's services."""
        return int(json.loads((self.home / "platform.json").read_text())["services"][service]["pid"])

    def kill(self, service: str) -> None:
        """SIGKILL one service's process."""
        os.kill(self.pid(service), signal.SIGKILL)

    def leave_the_dead(self) -> None:
        """From now on nothing that is killed comes back: its supervisors are killed, at once."""
        for name in SUPERVISORS:
            self.kill(name)

    def processes(self, match: Callable[[list[str]], bool]) -> list[psutil.Process]:
        """Live processes of this shop (by RESHELVE_HOME) whose command line fits."""
        found = []
        for process in psutil.process_iter():
            try:
                if not match(process.cmdline()):  # the quickest to ask
                    continue
                mine = process.environ().get("RESHELVE_HOME") == str(self.home)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def workers(self, where: str = "") -> list[psutil.Process]:
        """The processes that train below a directory; launchers name the same module later in their command lines."""
        module = ["-m", "reshelve.training.worker"]
        return self.processes(lambda words: words[1:3] == module and where in " ".join(words))


def eventually(what: str, found: Callable[[], Any], seconds: float, every: float = 0.2) -> Any:
    """The first truthy answer of `found`; fails naming `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every)
