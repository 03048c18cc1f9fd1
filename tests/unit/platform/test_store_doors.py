"""A stranger at the object store: every listener of a real SeaweedFS refuses it, and each identity does only what it may."""

from __future__ import annotations

import fnmatch
import socket
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError
from tests.deployed import put_state

from reshelve.deployments.deployment_log import Pointer, pointer_key, read_pointer
from reshelve.platform import seaweedfs
from reshelve.platform.identities import IDENTITIES
from reshelve.processes import free_port, stop_group
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.protocol.traffic import TrafficReport, write_traffic
from reshelve.settings import settings
from reshelve.store.conditions import AGENTS_PREFIX, require_conditional_writes
from reshelve.store.errors import StoreRefusedError
from reshelve.store.keys import make
from reshelve.store.objects import ObjectStore

RANKER = "recommend"
ASKED = (
    ("GET", "/"), ("GET", "/dir/assign"), ("GET", "/dir/status"), ("GET", "/vol/grow?count=1"),
    ("GET", "/col/delete?collection=reshelve"), ("POST", "/submit"), ("GET", "/buckets/?pretty=y"),
    ("GET", f"/buckets/reshelve/deployments/{RANKER}/pointer.json"),
    ("POST", f"/buckets/reshelve/deployments/{RANKER}/pointer.json"),
    ("DELETE", f"/buckets/reshelve/deployments/{RANKER}/pointer.json"), ("PUT", "/1,01637037d6"), ("GET", "/1,01637037d6"),
)  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A store with one pointer in it, and whoever asks it."""

    directory: Path
    port: int
    process: psutil.Process

    def client(self, identity: str) -> Any:
        keys = seaweedfs.credentials(self.directory, identity)
        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key,
        )  # fmt: skip

    def bucket(self, identity: str) -> ObjectStore:
        return ObjectStore("reshelve", self.client(identity))

    def listeners(self) -> list[int]:
        there = self.process.net_connections("inet")
        assert {one.laddr.ip for one in there if one.status == "LISTEN"} == {"127.0.0.1"}
        return sorted({one.laddr.port for one in there if one.status == "LISTEN"})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory, port = tmp_path_factory.mktemp("doors") / "store", free_port()
    settings.cache_clear()
    process = seaweedfs.start_seaweedfs(directory, port, directory.parent / "log")
    try:
        store = Store(directory, port, psutil.Process(process.pid))
        admin = store.bucket("admin")
        admin.create_bucket()
        admin.put(f"models/{RANKER}/1/manifest.json", b"{}")
        admin.put(f"runs/{RANKER}/2011-08-30/x/examples/events.parquet", b"personal")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RESHELVE_HOME", str(directory.parent / "home"))
            settings.cache_clear()
            make(if_missing=True)
            put_state(admin, Pointer(ranker=RANKER))
            yield store
    finally:
        stop_group(process.pid)


def asked_as_a_stranger(port: int, method: str, path: str, scheme: str) -> str:
    """What an HTTP request without any key comes to: its status, or what ended it."""
    context = ssl._create_unverified_context() if scheme == "https" else None
    body = b"stranger" if method in ("POST", "PUT") else None
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}{path}", data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return f"{answer.status}"
    except urllib.error.HTTPError as error:
        return f"{error.code}"
    except (OSError, urllib.error.URLError) as error:
        return f"ended: {error}"


@pytest.mark.slow
def test_every_listener_refuses_a_stranger(filled: Store) -> None:
    before = filled.client("admin").get_object(Bucket="reshelve", Key=pointer_key(RANKER))["Body"].read()
    ports = filled.listeners()
    assert filled.port in ports and len(ports) >= 8, ports
    for port in ports:
        for method, path in ASKED:
            for scheme in ("http", "https"):
                said = asked_as_a_stranger(port, method, path, scheme)
                assert said in ("400", "401", "403", "404", "405") or said.startswith("ended: "), (
                    port,
                    method,
                    path,
                    said,
                )
        if port == filled.port:
            continue  # S3: who asks is told by the signature
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            context = ssl._create_unverified_context()
            with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)certificate|reset|EOF"):  # noqa: SIM117
                with context.wrap_socket(plain) as secured:
                    secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                    if not secured.recv(1):
                        raise ConnectionError("reset")
    assert (
        filled.client("admin").get_object(Bucket="reshelve", Key=pointer_key(RANKER))["Body"].read() == before
    )


@pytest.mark.slow
def test_only_the_owner_reaches_its_sockets_and_secrets(filled: Store) -> None:
    named = [Path(one.laddr) for one in filled.process.net_connections("unix") if one.laddr]
    sockets = [path for path in named if path.exists()]
    assert sockets, "it has one beside each of its ports"
    for path in sockets:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022, path
    for name in ("s3.json", "security.toml", "inner-key.pem"):
        assert stat.S_IMODE((filled.directory / name).stat().st_mode) == 0o600, name


@pytest.mark.slow
@pytest.mark.parametrize("identity", IDENTITIES)
def test_an_identity_reads_and_writes_only_its_own(filled: Store, identity: str) -> None:
    may, client = IDENTITIES[identity], filled.client(identity)

    def allowed(call: Any) -> bool:
        try:
            call()
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied", error
            return False
        return True

    def under(prefixes: tuple[str, ...], key: str) -> bool:
        return any(fnmatch.fnmatchcase(key, f"{prefix}*") for prefix in prefixes)

    for key in (
        pointer_key(RANKER),
        f"models/{RANKER}/1/manifest.json",
        f"runs/{RANKER}/2011-08-30/x/examples/events.parquet",
    ):
        assert allowed(lambda key=key: client.get_object(Bucket="reshelve", Key=key)) == under(
            may.reads, key
        ), key
        folder = key.rpartition("/")[0] + "/"
        listed = allowed(lambda folder=folder: client.list_objects_v2(Bucket="reshelve", Prefix=folder))
        assert listed == under(may.reads, folder), folder
    assert allowed(lambda: client.list_objects_v2(Bucket="reshelve")) == ("" in may.reads)
    for key in (
        f"deployments/{RANKER}/pointer.tried", f"deployments/{RANKER}/log/00000009.json", f"models/{RANKER}/9/x",
        f"deployments/{RANKER}/agents/{identity}.json", f"deployments/{RANKER}/traffic/{identity}.json",
        f"requests/{RANKER}/2011-08-30/{identity}", f"runs/{RANKER}/{identity}", f"monitoring/{RANKER}/{identity}",
    ):  # fmt: skip
        wrote = allowed(lambda key=key: client.put_object(Bucket="reshelve", Key=key, Body=b"x"))
        assert wrote == under(may.writes, key), key
        gone = allowed(lambda key=key: client.delete_object(Bucket="reshelve", Key=key))
        assert gone == under(may.writes, key), key
    assert allowed(lambda: client.create_bucket(Bucket=f"by-{identity}")) == may.administers
    assert not client.list_buckets()["Buckets"] or may.reads


@pytest.mark.slow
def test_programs_beside_traffic_do_their_work_with_their_own_identity(filled: Store) -> None:
    agent, gateway = filled.bucket("agent"), filled.bucket("gateway")
    require_conditional_writes(agent, AGENTS_PREFIX)
    assert agent.folders("deployments/") and read_pointer(agent, RANKER) is not None
    write_report(
        agent, RANKER, Report(agent="a", server="h:1", at=datetime.now(UTC), sequence=1, serving=Serving())
    )
    for store in (gateway, filled.bucket("callers")):
        assert read_pointer(store, RANKER) is not None
        write_traffic(store, RANKER, TrafficReport(client="c", at=datetime.now(UTC), counts={}))
    for store in (agent, gateway, filled.bucket("pages"), filled.bucket("metrics")):
        with pytest.raises(StoreRefusedError):
            store.put_json(pointer_key(RANKER), {})


def test_keys_from_before_there_were_identities_stay_valid(tmp_path: Path) -> None:
    (tmp_path / "s3.json").write_text(
        '{"identities": [{"name": "reshelve", "credentials": [{"accessKey": "k", "secretKey": "s"}], "actions": ["Admin"]}]}'
    )
    admin = seaweedfs.credentials(tmp_path)
    assert (admin.access_key, admin.secret_key) == ("k", "s")
    assert seaweedfs.credentials(tmp_path, "agent") == seaweedfs.credentials(tmp_path, "agent") != admin
