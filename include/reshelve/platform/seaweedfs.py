"""SeaweedFS, the S3 server of one machine: `weed mini` on loopback, with an identity for each kind of process, and its inner doors closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from reshelve.errors import TryAgainError
from reshelve.platform.identities import IDENTITIES, Credentials, known_credentials, write_identities
from reshelve.platform.store_security import close_inner_doors
from reshelve.processes import Keep, free_port, port_is_open, start, stop_group, wait_until
from reshelve.settings import settings

_STARTS = 3


def environment(port: int, credentials: Credentials) -> dict[str, str]:
    """What boto3 and every verb need to reach the store."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def credentials(directory: Path, identity: str = "admin") -> Credentials:
    """The key of one of the store's identities; all are made at the first call and kept in `directory/s3.json` (mode 0600)."""
    path = directory / "s3.json"
    keys = known_credentials(path)
    if missing := [name for name in IDENTITIES if name not in keys]:
        keys |= {name: Credentials.make() for name in missing}
        write_identities(path, keys, settings().bucket)
    return keys[identity]


def start_seaweedfs(
    directory: Path, port: int, log: Path, keep: Keep | None = None
) -> subprocess.Popen[bytes]:
    """Start the store on 127.0.0.1:`port` with its data in `directory`; returns once it answers.

    Its inner services take free ports of their own. Another process may take one of them first: then it is started
    once more, with others. It ends with this process, unless somebody will `keep` it. Raises TryAgainError where it ends
    three times.
    """
    credentials(directory)
    write_identities(directory / "s3.json", known_credentials(directory / "s3.json"), settings().bucket)
    close_inner_doors(directory)
    (directory / "data").mkdir(parents=True, exist_ok=True)
    for _ in range(_STARTS):
        process = _start_once(directory, port, log, keep)
        if process.poll() is None:
            return process
    raise TryAgainError(f"weed ended {_STARTS} times, at last with {process.returncode}", f"see {log}")


def _start_once(directory: Path, port: int, log: Path, keep: Keep | None) -> subprocess.Popen[bytes]:
    """A store that answers, or one that ended before it did."""
    own = {"TMPDIR": os.environ.get("TMPDIR", "/tmp"), "HOME": str(directory)}
    process = start(_command(directory, port), log, env=own, cwd=directory, keep=keep, inherit=False)
    try:
        wait_until(
            lambda: process.poll() is not None or port_is_open(port), 30, "the object store (SeaweedFS)"
        )
    except BaseException:  # Ctrl-C too: nobody knows of it yet
        stop_group(process.pid)
        raise
    return process


def _command(directory: Path, port: int) -> list[str]:
    weed = Path(sys.executable).with_name("weed")
    command = [
        str(weed), "-logtostderr=true", "mini", f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.port={port}", f"-s3.config={directory / 's3.json'}",
        "-webdav=false", "-admin.ui=false", "-s3.iam=false", "-master.telemetry=false",
    ]  # fmt: skip
    for name in ("master", "filer", "volume", "admin"):
        command += [f"-{name}.port={_low_port()}", f"-{name}.port.grpc={free_port()}"]
    # Lance would share port 9101 with every other store of this host, and end the loser of a race.
    return [*command, f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0"]


def _low_port() -> int:
    """A free port to which SeaweedFS can add its own 10000 and still have a port."""
    return next(port for port in iter(free_port, None) if port < 55_536)
