"""What one caller may do to the service and to the others: the real gateway, real nginx, a scripted server."""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import put_state
from tests.shops import (
    MANY,
    SLOW,
    STABLE,
    TOKEN,
    Shop,
    Told,
    make_token,
    open_shop,
    scripted_server,
)

from reshelve.deployments.deployment_log import Pointer
from reshelve.gateway import token_verbs
from reshelve.gateway.certificate import self_signed
from reshelve.processes import free_port, wait_until
from reshelve.store.objects import ObjectStore

pytestmark = pytest.mark.slow


def asked(servers: list[Told]) -> int:
    return sum(len(one.asked) for one in servers)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        pytest.param(400, {"body": '{"signature_name": "logits", "inputs": {"history": ["a"]}}'}, id="a signature in the body"),
        pytest.param(400, {"path": "/v1/models/recommend:predict?signature_name=logits"}, id="a query"),
        pytest.param(404, {"path": "/v1/models/recommend:classify"}, id="another method"),
        pytest.param(404, {"path": "/v1/models/recommend/logits:predict"}, id="a signature in the path"),
        pytest.param(404, {"path": f"/v1/models/recommend/versions/{STABLE}:predict"}, id="a version"),
        pytest.param(415, {"headers": {"Content-Encoding": "gzip"}}, id="packed"),
        pytest.param(415, {"headers": {"Content-Encoding": "identity, gzip"}}, id="packed twice"),
        pytest.param(413, {"body": MANY}, id="rows"),
        pytest.param(413, {"body": "x" * 70_000}, id="bytes"),
        pytest.param(401, {"token": TOKEN.swapcase()}, id="another case"),
        pytest.param(401, {"token": TOKEN[:-1]}, id="the beginning of a token"),
        pytest.param(401, {"token": TOKEN + "x"}, id="more than a token"),
        pytest.param(421, {"headers": {"Host": "evil.example"}}, id="another host"),
    ],
)  # fmt: skip
def test_what_never_reaches_a_model_server(
    shop: Shop, servers: list[Told], status: int, request_: Any
) -> None:
    before = asked(servers)
    found, said, _ = shop.ask(**request_)
    assert found == status and "evil" not in str(said)
    assert asked(servers) == before


def test_what_a_model_server_hears_of_a_caller(shop: Shop, servers: list[Told]) -> None:
    """The body; no token, no cookie, no host, no word of the caller's own."""
    sent = {"Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "Range": "bytes=0-1", "Content-Type": "text/plain"}
    assert shop.ask("a session", headers=sent)[0] == 200
    heard = next(one.headers for one in servers if one.headers)
    assert heard.keys() <= {"Host", "Content-Type", "Content-Length", "Connection"}, heard
    assert heard["Content-Type"] == "application/json" and heard["Host"] == "servers"


def test_no_redirect_and_no_host_comes_back(shop: Shop) -> None:
    connection = shop.connect()
    for host in ("evil.example", "evil.example:8443", "localhost"):
        for path in (
            "/health/",
            "/v1",
            "/v1/models/",
            "//evil.example/..",
            "/%2fevil.example",
            "/v1/models/recommend:predict/",
        ):
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            said = answer.read().decode()
            assert answer.status in (400, 404, 421) and answer.headers["Location"] is None
            assert "evil" not in said + str(answer.headers)
    connection.request("GET", "/health", headers={"Host": "10.1.2.3"})  # as a load balancer asks
    assert connection.getresponse().status in (200, 503)
    connection.close()


def test_scope_end_and_revocation_are_in_force_at_once(shop: Shop) -> None:
    other = make_token("other", rankers=["search"])
    assert shop.ask(token=other)[0] == 403
    own = make_token("own", rankers=["recommend"])
    assert shop.ask(token=own)[0] == 200
    token_verbs.revoke("own")
    assert shop.ask(token=own)[0] == 401
    path = token_verbs.tokens_path()
    document = json.loads(path.read_text())
    document["tokens"][0]["expires"] = "2020-01-01T00:00:00Z"
    path.write_text(json.dumps(document))
    status, said, _ = shop.ask()
    assert status == 401 and "expired" in said["error"]


def test_one_tokens_limits_are_not_the_others(shop: Shop, servers: list[Told]) -> None:
    few = make_token("few", requests_per_second=2, concurrent=1)
    wait_until(lambda: '"~^few\\.' in (shop.home / "gateway" / "nginx.conf").read_text(), 10, "its limits")
    wait_until(lambda: 429 in {shop.ask(token=few)[0] for _ in range(8)}, 10, "the limit per second")
    assert {shop.ask()[0] for _ in range(20)} == {200}
    # Who has the name and not the secret uses up nothing of what its owner may.
    time_to_refill = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > time_to_refill, 10, "a full measure again")
    wrong = few[:-4] + "wron"
    assert {shop.ask(token=wrong)[0] for _ in range(6)} <= {401, 429}
    assert shop.ask(token=few)[0] == 200


def test_what_one_token_may_ask_at_once(shop: Shop, servers: list[Told]) -> None:
    """Connections are open before: all eight ask while the first answers are still to come."""
    pair = make_token("pair", concurrent=2)
    for one in servers:
        one.seconds = 0.8
    others: set[int] = set()

    def at_once() -> list[int]:
        connections = [shop.connect() for _ in range(8)]
        for connection in connections:
            connection.connect()
        with ThreadPoolExecutor(12) as pool:
            own = pool.map(lambda connection: shop.ask(token=pair, connection=connection)[0], connections)
            others.update(pool.map(lambda _: shop.ask()[0], range(4)))
        for connection in connections:
            connection.close()
        return sorted(own)

    wait_until(lambda: at_once() == [200] * 2 + [429] * 6, 20, "the edge to know the limit of two")
    assert others == {200}


def test_what_one_address_may_ask(
    store: ObjectStore, servers: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever tries tokens is one address: each of them is another, so no limit of a token is met."""
    shop = open_shop(monkeypatch)
    put_state(store, Pointer(ranker="recommend", stable=STABLE))
    try:
        shop.start(*(one.address for one in servers), more=("--per-address", "2"))
        wait_until(
            lambda: {shop.ask(token=f"{TOKEN}{number}")[0] for number in range(8)} == {401, 429},
            30,
            "the limit of an address",
        )
        assert asked(servers) == 0
    finally:
        shop.close()


def test_nothing_secret_is_in_files_logs_and_environments(shop: Shop) -> None:
    for request_ in (
        {},
        {"token": TOKEN.swapcase()},
        {"body": MANY},
        {"headers": {"Content-Encoding": "gzip"}},
        {"body": "{"},
    ):
        shop.ask(**request_)  # type: ignore[arg-type]
    secrets = [TOKEN, TOKEN.swapcase(), "Bearer ", os.environ["AWS_SECRET_ACCESS_KEY"]]
    kept = json.loads(token_verbs.tokens_path().read_text())["tokens"][0]
    files = [file for file in shop.home.rglob("*") if file.is_file() and file != token_verbs.tokens_path()]
    assert {"nginx.conf", "nginx.log", "inner.conf", "gateway.log", "admission.log"} <= {
        file.name for file in files
    }
    for file in files:
        text = file.read_bytes().decode(errors="replace")
        # nginx's map has the word that comes before a token.
        text = text.replace("Authorization: Bearer <token>", "").replace('"~^Bearer (?<word>', "")
        for secret in (*secrets, kept["hash"], kept["salt"]):
            assert secret not in text, file
    for name in ("nginx.pid", "inner.pid", "admission1.pid", "admission2.pid"):
        pid = (shop.home / "gateway" / name).read_text().strip()
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
        assert "AWS_" not in environment and "RESHELVE_BUCKET" not in environment, name


def test_a_renewed_certificate_is_served_without_a_restart(shop: Shop) -> None:
    edge, address = shop.nginx, ("localhost", shop.port)
    before = ssl.get_server_certificate(address)
    renewed = shop.home / "renewed"
    renewed.mkdir()
    self_signed(renewed)
    for name in ("certificate.pem", "key.pem"):  # one after the other, as whoever renews them does
        (renewed / name).replace(shop.home / "gateway" / name)
    expected = (shop.home / "gateway" / "certificate.pem").read_text()
    assert before.split() != expected.split()
    wait_until(lambda: ssl.get_server_certificate(address).split() == expected.split(), 20, "the renewed one")
    assert shop.ask()[0] == 200 and shop.nginx == edge


def test_admission_is_killed_and_no_caller_notices(shop: Shop) -> None:
    pid = int((shop.home / "gateway" / "admission1.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert {shop.ask(f"s{n}")[0] for n in range(20)} == {200}

    def started_again() -> bool:
        text = (shop.home / "gateway" / "admission1.pid").read_text().strip()
        return text not in ("", str(pid))

    wait_until(started_again, 30, "another admission process")
    assert {shop.ask(f"s{n}")[0] for n in range(20)} == {200}


def test_a_request_that_takes_too_long_is_asked_of_one_server(shop: Shop, servers: list[Told]) -> None:
    before = asked(servers)
    assert shop.ask(body=SLOW)[0] == 504
    assert asked(servers) == before + 1


def test_a_silent_server_is_asked_last_and_comes_back(
    store: ObjectStore, servers: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the gateway's own question: no caller's request decides it."""
    shop = open_shop(monkeypatch)
    put_state(store, Pointer(ranker="recommend", stable=STABLE))
    nowhere = f"127.0.0.1:{free_port()}"
    inner = shop.home / "gateway" / "inner.conf"
    try:
        shop.start(nowhere, servers[0].address, timeout=1)
        wait_until(lambda: shop.ask()[0] == 200, 30, "the gateway")
        wait_until(lambda: f"{nowhere} max_fails=0 backup" in inner.read_text(), 20, "it to be asked last")
        assert servers[0].address + " max_fails=0;" in inner.read_text()
        with scripted_server(int(nowhere.rpartition(":")[2])) as back:
            back.says(STABLE, [200])
            wait_until(
                lambda: f"{nowhere} max_fails=0;" in inner.read_text(), 20, "it to be asked like others"
            )
            wait_until(lambda: shop.ask()[0] == 200 and bool(back.asked), 20, "its first request")
    finally:
        shop.close()
