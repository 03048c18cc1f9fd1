"""The front of a model server: the real nginx, with the configuration of compose and Kubernetes, before our local model server."""

from __future__ import annotations

import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml

from reshelve.modelserver.local_server import Addresses, running_model_server
from reshelve.processes import free_port, port_is_open, start, stop_group, wait_until
from reshelve.protocol.messages import model_management_pb2
from reshelve.settings import PROJECT

from .calls import Caller, Listed

SCRIPT = PROJECT / "include" / "compose" / "model-front.sh"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
LET_THROUGH = {
    "/tensorflow.serving.PredictionService/Predict",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
}
ROUNDABOUT = (
    "/tensorflow.serving.PredictionService/..{reload}",
    "/tensorflow.serving.PredictionService/%2e%2e{reload}",
    "/tensorflow.serving.PredictionService/..%2f{name}",
    "/{reload}",
    "{reload}/",
    "{reload}?Predict",
    "/tensorflow.serving.ModelService/GetModelStatus/..%2fHandleReloadConfigRequest",
    "/tensorflow.serving.modelservice/HandleReloadConfigRequest",
)
SECONDS = 60


@dataclass(frozen=True)
class Served:
    """A server with one model, as its agent and as everybody else reaches it."""

    agent: Caller
    anybody: Caller
    base: Path

    def listed(self) -> dict[str, Listed]:
        return {"line": Listed(self.base)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, saved_model: Callable[..., Path]) -> Iterator[Served]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    base = tmp_path_factory.mktemp("line")
    saved_model(base / "1")
    files = tmp_path_factory.mktemp("front")
    with running_model_server({"line": base}) as server:
        front = Addresses(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
        said = {
            "SERVER_GRPC": server.grpc, "SERVER_REST": server.rest, "GRPC": front.grpc, "REST": front.rest,
            "FRONT_FILES": str(files), "PATH": os.environ["PATH"],
        }  # fmt: skip
        process = start(["sh", str(SCRIPT)], files / "log", said, inherit=False)
        try:
            for address in (front.grpc, front.rest):
                port = int(address.rpartition(":")[2])
                wait_until(lambda port=port: port_is_open(port), SECONDS, f"the front at {address}")  # type: ignore[misc]
            yield Served(Caller(server), Caller(front), base)
        finally:
            stop_group(process.pid)


def reload(caller: Caller, path: str) -> None:
    """Ask for an empty list of models by that path. Raises what the call comes to."""
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    ask = caller.channel.unary_unary(
        path,
        request_serializer=model_management_pb2.ReloadConfigRequest.SerializeToString,
        response_deserializer=model_management_pb2.ReloadConfigResponse.FromString,
    )
    ask(request, timeout=SECONDS)


@pytest.mark.slow
def test_predict_and_questions_pass(served: Served) -> None:
    assert served.anybody.predict("line", 3.0) == served.agent.predict("line", 3.0) == (1, 7.0)
    assert served.anybody.status("line") == served.agent.status("line")
    with pytest.raises(grpc.RpcError) as missing:
        served.anybody.predict("another")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND, "an error of the server arrives as it is"
    with urllib.request.urlopen(
        f"http://{served.anybody.addresses.rest}/v1/models/line", timeout=SECONDS
    ) as page:
        assert b"AVAILABLE" in page.read()


@pytest.mark.slow
def test_a_list_of_models_passes_by_no_path(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        served.anybody.reload({})
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "Predict and questions alone" in str(refused.value.details())
    for path in ROUNDABOUT:
        with pytest.raises(grpc.RpcError):
            reload(served.anybody, path.format(reload=RELOAD, name=RELOAD[1:]))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{served.anybody.addresses.rest}/", timeout=SECONDS)
    assert served.anybody.predict("line") == (1, 3.0), "what was asked for changed nothing"
    reload(served.agent, RELOAD)
    with pytest.raises(grpc.RpcError) as gone:
        served.anybody.predict("line")
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND, "the very request, sent by the agent, is taken"
    served.agent.reload(served.listed())
    served.agent.wait_for("line", 1, "AVAILABLE")


def test_what_passes_is_named() -> None:
    """A service that TensorFlow Serving gets one day is refused until somebody has looked at it."""
    named = set(re.findall(r"location (?:= )?(/tensorflow\.serving\.\S+) ", SCRIPT.read_text()))
    assert {path for path in LET_THROUGH if any(path.startswith(one) for one in named)} == LET_THROUGH
    assert named == {
        "/tensorflow.serving.PredictionService/",
        "/tensorflow.serving.ModelService/GetModelStatus",
    }


def test_nobody_but_agent_and_front_is_on_the_model_servers_network() -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
    (network,) = compose["services"]["model-server"]["networks"]
    beside = {name for name, service in compose["services"].items() if network in service["networks"]}
    assert beside == {"model-server", "agent", "model-front"} and compose["networks"][network]["internal"]
    assert not compose["services"]["model-server"].get("ports")
    agent = compose["services"]["agent"]["command"]
    assert agent[agent.index("--admin") + 1] == "model-server:8500"
    for text in ("docker-compose.yaml", "include/compose/prometheus/prometheus.yml"):
        asked = re.findall(r"model-server:850[01]", (PROJECT / text).read_text())
        assert len(asked) == (1 if text == "docker-compose.yaml" else 0), text


def test_in_a_pod_nothing_else_is_let_in() -> None:
    page = (PROJECT / "docs" / "how-to" / "kubernetes.md").read_text()
    found = [
        one for block in re.findall(r"```yaml\n(.*?)```", page, re.S) for one in yaml.safe_load_all(block)
    ]
    (pod,) = (
        one["spec"]["template"]["spec"] for one in found
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "ranking"
    )  # fmt: skip
    (front,) = (one for one in pod["containers"] if one["name"] == "model-front")
    said = {one["name"]: one["value"] for one in front["env"]}
    assert (said["SERVER_GRPC"], said["SERVER_REST"]) == ("127.0.0.1:8500", "127.0.0.1:8501")
    listens = {int(said[name].rpartition(":")[2]) for name in ("GRPC", "REST")}
    (service,) = (
        one["spec"] for one in found if one["kind"] == "Service" and one["metadata"]["name"] == "ranking"
    )
    assert {port["targetPort"] for port in service["ports"]} == listens
    policies = [one["spec"] for one in found if one["kind"] == "NetworkPolicy"]
    let_in = [
        port["port"] for policy in policies for rule in policy.get("ingress", ())
        if policy["podSelector"].get("matchLabels") == {"app": "ranking"} for port in rule["ports"]
    ]  # fmt: skip
    assert let_in and set(let_in) <= listens
