"""Who may do what in the bucket: one identity for each kind of process, with the prefixes that it reads and writes.

SeaweedFS gets them as they are, in `s3.json`; another store gets policies that say the same (docs/reference/processes.md).
The key of an identity that runs beside traffic can neither publish a version nor move a pointer.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reshelve.errors import ConfigurationError
from reshelve.files import write_private
from reshelve.platform.store_security import close_inner_doors
from reshelve.settings import settings
from reshelve.store.layout import DEPLOYMENTS, MODELS

EVERYTHING = ""
"""The prefix of the whole bucket."""


@dataclass(frozen=True)
class Identity:
    """What one kind of process may do with the objects of the bucket. `*` stands for any ranker."""

    purpose: str
    reads: tuple[str, ...]  # prefixes that it reads and lists
    writes: tuple[str, ...] = ()  # prefixes that it writes and deletes below
    administers: bool = False  # makes the bucket; reads and writes everything

    def actions(self, bucket: str) -> list[str]:
        """As SeaweedFS knows them."""
        if self.administers:
            return ["Admin", "Read", "Write", "List", "Tagging"]
        asked = [(action, prefix) for prefix in self.reads for action in ("Read", "List")]
        asked += [("Write", prefix) for prefix in self.writes]
        # Calls that name no object, as a listing of the whole bucket, are for those who have the bucket by its name.
        return [
            f"{action}:{bucket}/{prefix}*" if prefix else f"{action}:{bucket}" for action, prefix in asked
        ]


IDENTITIES: Mapping[str, Identity] = {
    "admin": Identity(
        "makes the bucket and proves its conditions; a person's shell", (EVERYTHING,), (EVERYTHING,), True
    ),
    "nights": Identity("the stages of a night, releases, the watch", (EVERYTHING,), (EVERYTHING,)),
    "pages": Identity("the Releases page, reports and Data Docs", (EVERYTHING,)),
    "agent": Identity("copies versions, reports", (MODELS, DEPLOYMENTS), (f"{DEPLOYMENTS}*/agents/",)),
    "gateway": Identity("follows the pointers, counts", (DEPLOYMENTS,), (f"{DEPLOYMENTS}*/traffic/",)),
    "callers": Identity(
        "the client library: follows the pointers, counts, logs a share of the requests",
        (DEPLOYMENTS,),
        (f"{DEPLOYMENTS}*/traffic/", "requests/"),
    ),
    "metrics": Identity("what the watch has seen, for Prometheus", (DEPLOYMENTS, "monitoring/")),
}


@dataclass(frozen=True)
class Credentials:
    """The key of one identity."""

    access_key: str
    secret_key: str

    @classmethod
    def make(cls) -> Credentials:
        """New ones."""
        return cls(secrets.token_hex(10), secrets.token_hex(20))


def known_credentials(path: Path) -> dict[str, Credentials]:
    """The keys in an `s3.json` by identity; empty where there is no file. Before there were several, `admin` was `reshelve`."""
    if not path.is_file():
        return {}
    found = {one["name"]: one["credentials"][0] for one in json.loads(path.read_text())["identities"]}
    return {
        ("admin" if name == "reshelve" else name): Credentials(keys["accessKey"], keys["secretKey"])
        for name, keys in found.items()
    }


def write_identities(path: Path, keys: Mapping[str, Credentials], bucket: str) -> None:
    """`s3.json` (mode 0600) with these keys."""
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": keys[name].access_key, "secretKey": keys[name].secret_key}],
            "actions": identity.actions(bucket),
        }
        for name, identity in IDENTITIES.items()
        if name in keys
    ]
    write_private(path, json.dumps({"identities": identities}, indent=1))


def from_environment() -> dict[str, Credentials]:
    """The keys that docker-compose.yaml hands to its store: `RESHELVE_S3_<IDENTITY>_KEY` and `…_SECRET`.

    Raises ConfigurationError naming every variable that is missing.
    """
    names = {
        name: (f"RESHELVE_S3_{name.upper()}_KEY", f"RESHELVE_S3_{name.upper()}_SECRET") for name in IDENTITIES
    }
    missing = [variable for pair in names.values() for variable in pair if not os.environ.get(variable)]
    if missing:
        raise ConfigurationError("keys of the object store are missing", f"set {', '.join(missing)}")
    return {name: Credentials(os.environ[key], os.environ[secret]) for name, (key, secret) in names.items()}


def main() -> None:
    """`python -m reshelve.platform.identities DIRECTORY`: what a store of docker-compose.yaml needs before it starts."""
    directory = Path(sys.argv[1])
    write_identities(directory / "s3.json", from_environment(), settings().bucket)
    close_inner_doors(directory)


if __name__ == "__main__":
    main()
