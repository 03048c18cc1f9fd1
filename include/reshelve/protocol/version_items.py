"""The items a version knows: `assets.extra/catalogue.jsonl` of its files, read from S3 and kept on this machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from reshelve.errors import DataError
from reshelve.settings import settings
from reshelve.store.manifest import version_prefix
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import require_manifest

CATALOGUE = "assets.extra/catalogue.jsonl"


@dataclass(frozen=True)
class Item:
    """One product."""

    id: str
    title: str
    events: int


def read_catalogue(store: ObjectStore, ranker: str, version: int) -> list[Item]:
    """Items in the version's order. Raises DataError where the version has no valid catalogue."""
    expected = require_manifest(store, ranker, version).files.get(CATALOGUE)
    if expected is None:
        raise DataError(
            f"{ranker} version {version} has no catalogue", f"expected {CATALOGUE} in its manifest"
        )
    # Named by its digest: never stale, and shared by versions with the same items.
    path = settings().home / "cache" / "catalogues" / f"{expected.sha256}.jsonl"
    if not path.is_file():
        store.download_file(f"{version_prefix(ranker, version)}/{CATALOGUE}", path)
    body = path.read_bytes()
    if hashlib.sha256(body).hexdigest() != expected.sha256:
        path.unlink()
        raise DataError(f"{ranker} version {version}: its catalogue does not match the manifest's digest")
    return _parse(body, path)


def _parse(body: bytes, path: Path) -> list[Item]:
    items = []
    for number, line in enumerate(body.decode().split("\n"), 1):
        if not line:
            continue
        try:
            found = json.loads(line)
            items.append(Item(str(found["item"]), str(found["title"]), int(found.get("events", 0))))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path.name}:{number}: no item", 'expected {"item": …, "title": …, "events": …}'
            ) from error
    if not items:
        raise DataError(f"{path.name}: the catalogue is empty")
    return items
