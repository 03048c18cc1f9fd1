"""The gateway: what nginx is told, what is counted, and the real nginx in front of a real model server."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.shops import TOKEN, Shop, open_shop

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.errors import ConfigurationError
from reshelve.gateway import edge, inner
from reshelve.gateway import gateway as gateway_module
from reshelve.gateway.certificate import self_signed
from reshelve.gateway.configuration import Gateway
from reshelve.gateway.counts import Counter, attempts
from reshelve.gateway.nginx import Nginx
from reshelve.gateway.tokens import Limits, new_token
from reshelve.names import is_ranker
from reshelve.processes import free_port, wait_until
from reshelve.protocol.traffic import read_traffic
from reshelve.rollout.release import release
from reshelve.rollout.roll_back import rollback
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

FIRST, SECOND = date(2011, 8, 30), date(2011, 8, 31)


HOSTILE = "x:predict{}location ~ (.*){root .;}#"


def gateway(directory: Path = Path("/home/shop"), **values: Any) -> Gateway:
    given: dict[str, Any] = {
        "listen": "127.0.0.1:8443",
        "servers": ("127.0.0.1:8501",),
        "certificate": directory / "certificate.pem",
        "key": directory / "key.pem",
        "hosts": ("localhost", "127.0.0.1", "[::1]"),
        "per_address": 1000,
        "tokens": directory / "tokens.json",
        "timeout": 1.0,
        "directory": directory,
    }
    return Gateway(**given | values)


def test_no_more_workers_than_cores_that_may_be_used_and_than_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with many cores would have one on each, whatever this process may use of them."""
    for cores, workers in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        for text in (edge.render(gateway()), inner.render(gateway(), {})):
            assert f"worker_processes {workers};" in text.splitlines()


@given(st.text(min_size=1, max_size=60), st.booleans())
@example(HOSTILE, True)
@example("recommend", True)
@example("recommend\n", False)
def test_no_name_but_a_rankers_is_ever_written(name: str, canary: bool) -> None:
    """Also where a pointer came by without being parsed; nothing else in the configuration depends on it."""
    values = {"canary": 3, "share": 0.5} if canary else {}
    hostile = Pointer.model_construct(ranker=name, sequence=1, stable=2, previous=1, served=(), **values)
    found = inner.render(gateway(), {name: hostile, "other": Pointer(ranker="other", stable=5)})
    if is_ranker(name) and name != "other":
        assert f"location = /v1/models/{name}:predict {{" in found
    else:
        assert found == inner.render(gateway(), {"other": Pointer(ranker="other", stable=5)})


@pytest.mark.parametrize("share", [1e-9, 0.0001, 0.5, 0.99999, 1.0])
def test_nginx_takes_every_pointer_that_can_be(tmp_path: Path, share: float) -> None:
    """One that it refused would keep all rankers as they were."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    state = {"canary": 3, "state": ReleaseState.CANARY, "share": share, "step": 1}
    known = {
        "first": Pointer(ranker="first", sequence=10**20, stable=2, previous=1, **state),
        "second": Pointer(ranker="second", stable=1, **state),
        "third": Pointer(ranker="third", stable=99_991_231_999),
        "z" * 41: Pointer(ranker="z" * 41),
        "fourth": Pointer(ranker="fourth", canary=3, state=ReleaseState.LOADING),
    }
    made = gateway(tmp_path)
    made.empty.mkdir()
    made.inner_configuration.write_text(inner.render(made, known))
    checked = Nginx(made.inner_configuration, made.inner_pid, made.empty)._command(made.inner_configuration)
    found = subprocess.run([*checked, "-t"], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_nginx_takes_hosts_and_tokens_of_every_form(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    self_signed(tmp_path)
    hosts = ("localhost", "10.0.0.1", "[::1]", "*.shop.example", "a-b.example")
    tokens = [
        new_token(f"shop-{number}", None, None, limits, given)[1]
        for number, (limits, given) in enumerate(
            [
                (Limits(), None),
                (Limits(rows=1, body_kilobytes=1024), None),
                (Limits(requests_per_second=1, concurrent=1), None),
                (Limits(requests_per_second=100_000, concurrent=4096), None),
                (Limits(), TOKEN),
            ]
        )
    ]
    for per_address in (0, 1000):
        made = gateway(tmp_path, hosts=hosts, per_address=per_address, listen=f"127.0.0.1:{free_port()}")
        made.empty.mkdir(exist_ok=True)
        text = edge.render(made, tokens)
        assert "client_max_body_size 1024k" in text and TOKEN not in text
        made.edge_configuration.write_text(text)
        command = Nginx(made.edge_configuration, made.edge_pid, made.empty)._command(made.edge_configuration)
        found = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30, check=False)
        assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("path", ["/home/a shop", "/home/a;b", '/home/"', "/home/a\nb", "/home/{a}", "/home/$host", "home", "/home/é"])  # fmt: skip
@pytest.mark.parametrize("part", ["certificate", "key", "directory"])
def test_paths_that_cannot_stand_in_a_configuration(part: str, path: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used in nginx's configuration"):
        edge.render(gateway(**{part: Path(path)}))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param({"listen": "127.0.0.1:8443 ssl; }"}, "--listen", id="listen"),
        pytest.param({"servers": ["127.0.0.1:8501", "h:1; }"]}, "--server", id="a server"),
        pytest.param({"certificate": Path("x")}, "belong together", id="half a certificate"),
        pytest.param({"hosts": ["shop.example", "a; }"]}, "--host", id="a host"),
    ],
)
def test_what_a_person_asks_for_is_parsed_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path))
    settings.cache_clear()
    asked = {"listen": "127.0.0.1:8443", "servers": [], "certificate": None, "key": None, "timeout": 1.0}
    asked |= {"hosts": [], "per_address": 1000}
    with pytest.raises(ConfigurationError, match=problem):
        gateway_module.configured(**asked | options)
    settings.cache_clear()


@pytest.mark.parametrize(
    ("versions", "status", "seconds", "found"),
    [
        pytest.param("1", "200", "0.012", [(1, "200", 0.012)], id="one server"),
        pytest.param("1", "502, 200", "-, 0.020", [(1, "200", 0.02)], id="the second server of a group"),
        pytest.param("2 1", "500 : 200", "0.4 : 0.1", [(2, "500", 0.4), (1, "200", 0.1)], id="canary, then stable"),
        pytest.param("2 1", "504, 502 : 200", "-, - : 0.1", [(2, "502", 0), (1, "200", 0.1)], id="both"),
        pytest.param("1", "-", "-", [], id="the caller went away"),
        pytest.param("1", "", "", [], id="nobody was asked"),
    ],
)  # fmt: skip
def test_attempts(versions: str, status: str, seconds: str, found: list[tuple[int, str, float]]) -> None:
    made = attempts(versions.split(" "), status, seconds)
    assert [(one.version, one.status, pytest.approx(one.seconds)) for one in made] == found


@given(st.lists(st.lists(st.integers(200, 599), min_size=1, max_size=3), min_size=1, max_size=4))
def test_every_group_of_servers_is_one_attempt(groups: list[list[int]]) -> None:
    status = " : ".join(", ".join(map(str, group)) for group in groups)
    seconds = " : ".join(", ".join("0.010" for _ in group) for group in groups)
    found = list(attempts([str(n) for n in range(1, len(groups) + 1)], status, seconds))
    assert [one.status for one in found] == [str(group[-1]) for group in groups]
    assert sum(one.seconds for one in found) == pytest.approx(0.01 * sum(map(len, groups)))


@given(st.text(max_size=80), st.text(max_size=80))
@example("200", "1 x|200|0.1")
@example("200", "1 2|200|0.1.2")
def test_a_strange_line_is_no_request(status: str, told: str) -> None:
    counter = Counter(Path("/nowhere"))
    with contextlib.suppress(ValueError):
        counter.count(json.dumps({"ranker": "recommend", "status": status, "told": told}))
    with pytest.raises(ValueError):
        counter.count(json.dumps({"ranker": HOSTILE, "status": "200", "told": "1 2|200|0.1"}))
        counter.count(
            json.dumps({"ranker": "recommend", "token": "a b", "status": "200", "told": "1 2|200|0.1"})
        )
    assert {ranker for ranker, _ in counter.meters} <= {"recommend"}


def test_each_token_is_a_client_of_its_own() -> None:
    """One caller's heavy requests time out: no version is taken back for what no other caller meets."""
    counter = Counter(Path("/nowhere"))
    for token, status in (("shop", "200"), ("shop", "200"), ("heavy", "504"), ("", "200")):
        counter.count(
            json.dumps({"ranker": "recommend", "token": token, "status": status, "told": f"1 2|{status}|0.1"})
        )
    reports = {meter.client: meter.report().counts[1][2] for meter in counter.meters.values()}
    failed = {
        client.rpartition("-")[2]: (counts.requests, counts.failed) for client, counts in reports.items()
    }
    assert failed == {"shop": (2, 0), "heavy": (1, 1), str(os.getpid()): (1, 0)}


@pytest.fixture
def shop(store: ObjectStore, host: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    made = open_shop(monkeypatch)
    try:
        made.start(f"127.0.0.1:{free_port()}", host.rest)  # the first one is dead
        yield made
    finally:
        made.close()


@pytest.mark.slow
def test_callers_follow_a_release_through_the_gateway(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker, shop: Shop
) -> None:
    """TLS and token, nothing but Predict, a canary judged on what the gateway counted, a rollback: no request fails."""
    one, two = publish(FIRST), publish(SECOND, "other")
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    wait_until(lambda: shop.ask()[0] == 200, 20, "the gateway to know the version")
    status, answer, version = shop.ask()
    assert (status, version) == (200, one) and answer["outputs"]["item"][0][0] == "i0"
    assert shop.ask(token="a-token-of-somebody-else")[0] == 401
    assert shop.ask(method="GET")[0] == 405
    assert shop.ask(body='{"inputs": {"nothing": ["x"]}}')[0] == 400, (
        "what admission lets in and the version rejects"
    )
    for path in ("/v1/models/recommend", f"/v1/models/recommend/versions/{one}:predict", "/v1/models/recommend:classify",
                 "/monitoring/prometheus/metrics", "/@stable_recommend", "/v1/models/other:predict"):  # fmt: skip
        assert shop.ask(path=path)[0] == 404, path
    assert shop.ask(method="GET", path="/health")[0] == 200

    failed: list[Any] = []
    places: dict[str, set[int]] = {}
    stop = threading.Event()

    def customer(first: int) -> None:
        for number in itertools.count(first, 4):
            if stop.wait(0.005):
                return
            session = f"s{number % 200}"
            status, _, version = shop.ask(session)
            places.setdefault(session, set()).add(version)
            if status != 200:
                failed.append((status, version))

    threads = [threading.Thread(target=customer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    careful = ranker.with_values(
        {
            "release.max_latency_ratio": 20,
            "release.canary": {"shares": [0.25, 0.5], "min_requests": 40, "step_minutes": 2},
        }
    )
    try:
        released = release(careful, two, by="test")
        assert released["state"] == "promoted", released
        wait_until(lambda: shop.ask("s1")[2] == two, 20, "the new version")
        rollback(ranker.name, to=None, by="test")
        wait_until(lambda: {shop.ask(f"s{n}")[2] for n in range(20)} == {one}, 20, "the old version")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed[:5]
    evidence = [step for step in released["steps"] if step["step"] == "canary"]
    assert len(evidence) == 2
    wait_until(lambda: set(read_traffic(store, "recommend", 0)) == {one, two}, 10, "the counts")
    found = read_traffic(store, "recommend", 0)
    assert not any(counts.errors for counts in found.values())
    assert sum(sum(counts.rejected.values()) for counts in found.values()) == 1, "the caller's own, and once"


@pytest.mark.slow
def test_customers_are_answered_while_the_gateway_is_killed(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker, shop: Shop
) -> None:
    one = publish(FIRST)
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    wait_until(lambda: shop.ask()[0] == 200, 20, "the gateway to know the version")
    wait_until(lambda: _counted(store, one) > 0, 20, "the counts")
    before = shop.nginx
    os.kill(shop.pid, signal.SIGKILL)
    os.waitpid(shop.pid, 0)
    assert {shop.ask(f"s{n}")[0] for n in range(20)} == {200}
    told = _counted(store, one)
    shop.start(host.rest)
    wait_until(lambda: shop.ask()[0] == 200 and _counted(store, one) > told, 30, "the next gateway to count")
    assert shop.nginx == before
    os.kill(shop.pid, signal.SIGTERM)
    os.waitpid(shop.pid, 0)
    wait_until(lambda: not shop.nginx_lives(), 10, "nginx to stop with it")


def _counted(store: ObjectStore, version: int) -> int:
    found = read_traffic(store, "recommend", 0)
    return found[version].requests if version in found else 0
