"""What becomes of a request, whatever the model servers answer: the real gateway, real nginx, a server told what to say."""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import put_state
from tests.shops import TOKEN, Shop, Told, open_shop, scripted_server

from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.processes import wait_until
from reshelve.protocol.traffic import Counts, read_traffic
from reshelve.store.objects import ObjectStore

pytestmark = pytest.mark.slow
OLD, STABLE, NEW = 20110828001, 20110829001, 20110830001


@pytest.fixture
def server() -> Iterator[Told]:
    with scripted_server() as told:
        yield told


@pytest.fixture
def shop(store: ObjectStore, server: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """One ranker, stable and previous, behind one server that has both."""
    made = open_shop(monkeypatch)
    server.says(OLD, [200])
    server.says(STABLE, [200])
    point(store)
    try:
        made.start(server.address, timeout=2)
        wait_until(lambda: made.ask()[0] == 200, 20, "the gateway to know the version")
        wait_until(lambda: counted(store, STABLE).requests > 0, 20, "the first counts")
        yield made
    finally:
        made.close()


def point(store: ObjectStore, **values: Any) -> None:
    """Say what should serve."""
    given = {"stable": STABLE, "previous": OLD, **values}
    put_state(store, Pointer(ranker="recommend", **given))


def counted(store: ObjectStore, version: int) -> Counts:
    return read_traffic(store, "recommend", 0).get(version, Counts())


def after(store: ObjectStore, before: Counts, version: int, requests: int = 1) -> Counts:
    """What was counted of a version since `before`, as soon as it is so many requests."""
    wait_until(
        lambda: counted(store, version).requests >= before.requests + requests, 10, f"the counts of {version}"
    )
    return counted(store, version).minus(before)


def test_a_request_that_a_busy_server_refused_is_made_again(
    shop: Shop, store: ObjectStore, server: Told
) -> None:
    """There is one server alone; the refusals are counted, and are nobody's failure."""
    before = counted(store, STABLE)
    for refusals in ([429] * 3, [503, 429], [429] * 8):
        server.says(STABLE, [*refusals, 200])
        assert shop.ask()[0::2] == (200, STABLE)
    found = after(store, before, STABLE, 3)
    assert (found.requests, found.failed, found.rejected, found.refusals) == (3, 0, {}, 13)


def test_tries_have_an_end(shop: Shop, store: ObjectStore, server: Told) -> None:
    before, server.asked[:] = counted(store, STABLE), []
    server.says(STABLE, [429])
    status, said, _ = shop.ask()
    assert status == 503 and "busy" in said["error"]
    assert 2 <= len(server.asked) <= 13
    server.says(STABLE, [200])
    found = after(store, before, STABLE)
    assert (found.errors, found.refusals) == ({"BusyError": 1}, len(server.asked))


@pytest.mark.parametrize(
    ("stable", "previous", "status", "version", "errors", "rejected"),
    [
        pytest.param(400, 400, 400, OLD, {}, {"HTTP 400": 1}, id="both refuse: the caller's own"),
        pytest.param(400, 200, 200, OLD, {"HTTP 400": 1}, {}, id="only the newer one does: its fault"),
        pytest.param(400, 404, 400, STABLE, {}, {"HTTP 400": 1}, id="there is nobody else to ask"),
        pytest.param(400, 500, 400, STABLE, {}, {"HTTP 400": 1}, id="the other one is broken"),
        pytest.param(500, 200, 500, STABLE, {"HTTP 500": 1}, {}, id="the version fails"),
    ],
)
def test_whose_fault_it_is(shop: Shop, store: ObjectStore, server: Told, stable: int, previous: int, status: int, version: int,
                           errors: dict[str, int], rejected: dict[str, int]) -> None:  # fmt: skip
    before, others = counted(store, STABLE), counted(store, OLD)
    server.says(STABLE, [stable])
    server.says(OLD, [previous])
    assert shop.ask()[0::2] == (status, version)
    found = after(store, before, STABLE)
    assert (found.requests, found.errors, found.rejected) == (1, errors, rejected)
    answered = after(store, others, OLD, 1 if status == 200 else 0)
    assert (answered.failed, answered.rejected) == (0, {}) and answered.requests == (status == 200)


def test_what_a_canary_refuses_and_the_stable_version_answers(
    shop: Shop, store: ObjectStore, server: Told
) -> None:
    server.says(NEW, [200])
    point(store, canary=NEW, state=ReleaseState.CANARY, share=0.9999, step=1)
    wait_until(lambda: shop.ask()[2] == NEW, 10, "the canary")
    wait_until(lambda: counted(store, NEW).requests > 0, 10, "its counts")
    for canary, stable, status, errors, rejected in (
        (400, 200, 200, {"HTTP 400": 1}, {}),
        (400, 400, 400, {}, {"HTTP 400": 1}),
        (500, 200, 200, {"HTTP 500": 1}, {}),
    ):
        before = counted(store, NEW)
        server.says(NEW, [canary])
        server.says(STABLE, [stable])
        server.says(OLD, [stable])
        assert shop.ask("a session")[0] == status
        found = after(store, before, NEW)
        assert (found.requests, found.errors, found.rejected) == (1, errors, rejected)
    before = counted(store, STABLE)
    server.says(NEW, [429])
    server.says(STABLE, [200])
    assert shop.ask("a session")[0::2] == (200, STABLE)
    assert after(store, before, STABLE).refusals == 1, "busy is no fault of the canary"


def test_nobodys_failures(shop: Shop, store: ObjectStore, server: Told) -> None:
    """401, 405, 413 and paths that are none never reach a version."""
    before = counted(store, STABLE)
    assert shop.ask(token="a-token-of-somebody-else")[0] == 401
    assert shop.ask(token=TOKEN.upper())[0] == 401, "a token in another case is another token"
    assert shop.ask(method="GET")[0] == 405
    assert shop.ask(body="x" * 2_000_000)[0] == 413
    assert shop.ask(path="/v1/models/other:predict")[0] == 404
    assert shop.ask(path="/v1/models/recommend:predict%0A")[0] == 404
    assert shop.ask(path="/v1/models/Recommend:predict")[0] == 404
    assert shop.ask()[0] == 200
    found = after(store, before, STABLE)
    assert (found.requests, found.failed, found.rejected) == (1, 0, {})


def test_a_version_that_is_not_there_for_a_moment(shop: Shop, store: ObjectStore, server: Told) -> None:
    """The version before answers; else what has the label; else it is asked for again until the deadline; never 404."""
    server.says(STABLE, [404])
    assert shop.ask()[0::2] == (200, OLD)
    server.says(OLD, [404])
    server.says("stable", [200])
    assert shop.ask()[0::2] == (200, 0), "which version has the label is not known"
    server.says("stable", [400])  # `Unrecognized servable version label`
    server.says(STABLE, [404, 404, 404, 200])
    assert shop.ask()[0::2] == (200, STABLE)
    server.says(STABLE, [404])
    assert shop.ask()[0] == 503
    wait_until(lambda: counted(store, STABLE).failed > 0, 10, "its counts")
    assert counted(store, STABLE).errors == {"NothingServesError": 1}


def test_ready_is_when_the_stable_version_answers(shop: Shop, store: ObjectStore, server: Told) -> None:
    def health() -> int:
        return shop.ask(method="GET", path="/health")[0]

    wait_until(lambda: health() == 200, 10, "readiness")
    server.says(STABLE, [404])
    wait_until(lambda: health() == 503, 10, "the end of readiness")
    server.says(STABLE, [200])
    wait_until(lambda: health() == 200, 10, "readiness again")


def test_a_second_ranker_that_is_not_there_yet_keeps_a_new_gateway_from_being_ready(
    store: ObjectStore, server: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    point(store)
    server.says(STABLE, [200])
    put_state(store, Pointer(ranker="second", stable=STABLE))
    shop = open_shop(monkeypatch)
    try:
        shop.start(server.address)
        wait_until(lambda: shop.ask()[0] == 200, 20, "the first ranker")
        assert shop.ask(method="GET", path="/health")[0] == 503
        server.statuses["/v1/models/second/versions/20110829001"] = [200]
        wait_until(lambda: shop.ask(method="GET", path="/health")[0] == 200, 10, "both")
        server.statuses["/v1/models/second/versions/20110829001"] = [404]
        before = len(server.asked)
        wait_until(
            lambda: shop.ask()[0] == 200 and len(server.asked) > before + 20, 20, "a while", every=0.05
        )
        assert shop.ask(method="GET", path="/health")[0] == 200, "one ranker's trouble is not the others'"
    finally:
        shop.close()


def test_no_connection_is_closed_by_a_move_of_a_pointer(shop: Shop, store: ObjectStore, server: Told) -> None:
    """Connections that are kept, busy and idle ones, through twelve moves: none of them is closed."""
    server.says(NEW, [200])
    closed: list[str] = []
    answers = itertools.count()
    stop = threading.Event()

    def customer(pause: float) -> None:
        connection = shop.connect()
        connection.connect()
        kept = connection.sock
        for number in itertools.count():
            if stop.wait(pause):
                break
            try:
                if shop.ask(f"s{number}", connection=connection)[0] != 200 or connection.sock is not kept:
                    closed.append("not the same connection, or no answer")
                    kept = connection.sock
            except (http.client.HTTPException, OSError) as error:
                closed.append(type(error).__name__)
                connection.close()
            next(answers)
        connection.close()

    threads = [threading.Thread(target=customer, args=(pause,)) for pause in (0.001, 0.001, 0.003, 0.05, 0.3)]
    for thread in threads:
        thread.start()
    try:
        for move in range(12):
            wanted = (NEW, STABLE) if move % 2 == 0 else (STABLE, OLD)
            point(store, stable=wanted[0], previous=wanted[1])
            wait_until(lambda wanted=wanted: shop.ask()[2] == wanted[0], 20, "the move")  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
    made = next(answers)
    assert made > 200 and not closed, (
        f"{len(closed)} of {made} requests met a closed connection: {closed[:3]}"
    )


def test_a_hostile_bucket_opens_nothing(shop: Shop, store: ObjectStore, server: Told) -> None:
    """Names that were once pasted into the configuration, and every file beside it."""
    for name in (
        "x:predict{}location ~ (.*){root .;}#",
        "y:predict{}location ~ (.*){alias ..;}#",
        "z;}server{listen 9;}",
    ):
        document = {"ranker": name, "stable": STABLE, "sequence": 0}
        store.put_json(f"deployments/{name}/pointer.json", document)
    put_state(store, Pointer(ranker="second", stable=STABLE))
    server.statuses[f"/v1/models/second/versions/{STABLE}"] = [200]
    wait_until(
        lambda: shop.ask(path="/v1/models/second:predict")[0] == 200, 20, "the rankers to be listed again"
    )
    directory = shop.home / "gateway"
    for file in [*directory.iterdir(), shop.home / "gateway.log", Path("/etc/passwd")]:
        for path in (
            f"/{file.name}",
            f"/../{file.name}",
            f"/%2e%2e/{file.name}",
            f"//{file}",
            f"/v1/models/../../{file.name}",
        ):
            status, said, _ = shop.ask(method="GET", path=path)
            assert status in (400, 404), (path, status)
            assert TOKEN not in str(said) and "PRIVATE" not in str(said)
    assert directory.stat().st_mode & 0o777 == 0o700
    for name in ("nginx.conf", "inner.conf", "key.pem"):
        assert (directory / name).stat().st_mode & 0o077 == 0, name
    inner = (directory / "inner.conf").read_text()
    assert "root .;" not in inner and "alias" not in inner and TOKEN not in inner
    assert "recommend" not in (directory / "nginx.conf").read_text(), "the edge knows nothing of the store"
