"""Where a night's report is: beside its run on S3, and the page that serves it behind the log-in.

A report goes by the version that the night published, `20110830001`, or, where it published none, by its run,
`2011-08-30-1a2b3c4d5e6f`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from reshelve.errors import DataError
from reshelve.lineage.run import Run
from reshelve.store.json_documents import json_value
from reshelve.store.layout import run_folder, runs_of
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import SIGNATURE, Signed, check_signature, trust
from reshelve.store.versions import read_manifest

STAGE = "report"
FILE = "report.html"
_RANKER = re.compile(r"[a-z][a-z0-9_]{0,40}")
_VERSION = re.compile(r"\d{11,12}")
_RUN = re.compile(r"(\d{4}-\d{2}-\d{2})-([0-9a-f]{12})")


def report_name(run: Run, version: int | None) -> str:
    """What a night's report goes by."""
    return str(version) if version else f"{run.partition.isoformat()}-{run.digest}"


def report_address(ranker: str, name: str) -> str:
    """The path of the page that shows it, without a leading slash."""
    return f"reshelve/report/{ranker}/{name}"


def report_key(store: ObjectStore, ranker: str, name: str | int) -> str | None:
    """The S3 key of the report that goes by `name` (a version or a run), or None where no such night is known.

    Any text may be asked for: what is neither a version nor a run gives None. That the key is there says nothing of
    the report itself: nights from before there were reports have none. Raises DataError where the version's manifest
    is unreadable or not signed by a trusted key.
    """
    asked = str(name)
    if not _RANKER.fullmatch(ranker):
        return None
    if _VERSION.fullmatch(asked):
        manifest = read_manifest(store, ranker, int(asked))
        return None if manifest is None else f"{run_folder(manifest.lineage.run)}{STAGE}/{FILE}"
    found = _RUN.fullmatch(asked)
    return f"{runs_of(ranker)}{found[1]}/{found[2]}/{STAGE}/{FILE}" if found else None


def read_report(store: ObjectStore, ranker: str, name: str | int) -> bytes | None:
    """The report's bytes (UTF-8 HTML), or None where there is none of that name.

    A person decides by what it says. Raises DataError where the night that made it did not sign these very bytes.
    """
    key = report_key(store, ranker, name)
    found = None if key is None else store.get(key)
    if key is None or found is None:
        return None
    result = store.get(f"{key.removesuffix(FILE)}result.json")
    try:
        said = json_value(result.body) if result is not None else {}
        signature = {SIGNATURE: said["signature"]} if said.get("signature") else {}
        statement = report_statement(key, found.body, str(said.get("made_at")))
        at = datetime.fromisoformat(said["made_at"]) if signature else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{key}: the result beside the report is damaged", f"{error!r}") from error
    check_signature({**statement, **signature}, key, trust(), (Role.BUILD,), Signed.REPORT, signed_at=at)
    return found.body


def report_statement(key: str, body: bytes, made_at: str) -> dict[str, str]:
    """What the night signs of its report."""
    return {"key": key, "sha256": hashlib.sha256(body).hexdigest(), "made_at": made_at}
