"""Ready is what answers under the wanted labels: the health check's script and its twin of the local platform."""

from __future__ import annotations

import os
import subprocess
from datetime import date
from typing import Any

import pytest

from reshelve.agent.readiness import unanswered
from reshelve.processes import wait_until
from reshelve.rollout.release import release
from reshelve.settings import PROJECT


@pytest.mark.slow
def test_the_model_server_is_ready_when_the_wanted_labels_answer(
    host: Any, publish: Any, ranker: Any
) -> None:
    """The script of the health check, beside a real agent and a real model server."""
    script = PROJECT / "include" / "compose" / "ready.sh"
    environment = {**os.environ, "MODELS": str(host.models), "REST": host.rest}

    def ready() -> tuple[int, str]:
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout

    assert ready()[0] == 1 and "the agent has not started" in ready()[1]
    agent = host.start_agent()
    wanted = host.models / "labels.wanted"
    wait_until(wanted.is_file, 60, "what the agent wants")
    assert ready()[0] == 1  # nothing listens
    host.start_server()
    # Nothing was released yet, so nothing has to answer. (The REST port opens a moment after the other one.)
    wait_until(lambda: ready() == (0, ""), 30, "a server that is ready")
    release(ranker, publish(date(2011, 8, 30)), by="test")
    wait_until(lambda: wanted.read_text() == "recommend stable\n", 60, "the wanted label")
    assert ready() == (0, "")
    host.kill(agent)  # it would mend the file
    wanted.write_text("recommend stable\nads stable\n")
    code, said = ready()
    assert code == 1 and "ads stable" in said
    assert unanswered(host.models, host.rest) == ["ads stable"]
