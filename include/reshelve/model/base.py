"""Where the pretrained transformer comes from: an installed package, a directory, S3 or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reshelve.config.bases import not_as_listed
from reshelve.errors import ConfigurationError, MisfitError, TryAgainError
from reshelve.files import digest_of_file
from reshelve.logs import logger
from reshelve.model.base_home import BASE, home_of, require_files
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

_READ = (".safetensors", ".json", ".txt")  # what a tokenizer and an encoder are made of


@dataclass(frozen=True)
class BaseModel:
    """A pretrained transformer on this machine's disk.

    `files` maps each file name to its sha256; `revision` is a package version, a commit, or a digest of the files.
    """

    path: Path
    name: str
    revision: str
    files: dict[str, str]

    def record(self) -> dict[str, Any]:
        """What a version remembers of its base model: everything but where it lay on one machine."""
        return {"name": self.name, "revision": self.revision, "files": self.files}


def resolve_base(uri: str, store: ObjectStore | None) -> BaseModel:
    """The base model that `model.base` names, with the digests of its files.

    `package:NAME`, a local directory (begins with `/`, `.` or `~`), `s3://bucket/prefix`, or a hub name with an
    optional `@revision`. Raises ConfigurationError where there is no such model, it has no safetensors weights, or it is not
    what the list of bases says of it; TryAgainError where the store or the hub is away.
    """
    base = _fetched(uri, store)
    if why := not_as_listed(uri, base.revision, base.files):
        raise MisfitError(
            BASE, f"{uri}: {why}", "the list says what was reviewed: fetch that, or review this"
        )
    return base


def _fetched(uri: str, store: ObjectStore | None) -> BaseModel:
    home = home_of(uri)
    if home is not None:
        name = uri.removeprefix("package:")
        return described(home, uri, None if name == uri else _package_version(name))
    return _from_s3(uri, store) if uri.startswith("s3://") else _from_hub(uri)


def _package_version(name: str) -> str | None:
    top = name.partition(".")[0]
    try:
        return importlib.metadata.version(top)  # the distribution mostly has the package's own name
    except importlib.metadata.PackageNotFoundError:
        owners = importlib.metadata.packages_distributions().get(top, [])
        return importlib.metadata.version(owners[0]) if owners else None


def _from_s3(uri: str, store: ObjectStore | None) -> BaseModel:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/"
    source = store if store is not None and store.bucket == bucket else ObjectStore(bucket)
    keys = [key for key, _ in source.list(prefix) if "/" not in key[len(prefix) :]]
    require_files(uri, [key[len(prefix) :] for key in keys])
    wanted = [key for key in keys if key.endswith(_READ)]
    # Entity tags change with the bytes: a model replaced in place is fetched again, one that stayed is not.
    digest = hashlib.sha256(
        "\n".join([uri, *(f"{key} {source.etag(key)}" for key in wanted)]).encode()
    ).hexdigest()[:16]
    home = settings().home / "base" / digest
    if not home.is_dir():
        partial = home.with_name(f".{digest}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for key in wanted:
            source.download_file(key, partial / key[len(prefix) :])
        partial.rename(home)
        logger(stage="base").info("downloaded", base=uri, files=len(wanted))
    os.utime(home)  # it is used: `kept_base` deletes what is not
    return described(home, uri, None)


def _from_hub(uri: str) -> BaseModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError as HubError
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = uri.partition("@")
    try:
        path = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=["*.safetensors", "*.json"],
            ignore_patterns=["*/*"],  # exports to other formats live in sub-directories
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ConfigurationError(
            f"model.base: the hub has no model {uri!r}", str(error).partition("\n")[0]
        ) from error
    except (LocalEntryNotFoundError, HubError, OSError) as error:
        raise TryAgainError(
            f"model.base: {uri!r} could not be fetched from the Hugging Face hub, and is not in its cache here",
            "without a network use package:NAME, a directory or s3://bucket/prefix",
        ) from error
    return described(Path(path), name, Path(path).name)


def described(path: Path, name: str, revision: str | None) -> BaseModel:
    """The base whose files are there. `revision`: empty, the digest of them."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    require_files(name, names)
    files = {entry: digest_of_file(path / entry) for entry in names if entry.endswith(_READ)}
    if revision is None:
        revision = hashlib.sha256("\n".join(f"{k} {v}" for k, v in files.items()).encode()).hexdigest()[:16]
    return BaseModel(path, name, revision, files)
