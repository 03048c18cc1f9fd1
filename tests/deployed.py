"""Versions, deployment logs and verdicts written by hand for tests: signed and chained, whatever they say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from reshelve.deployments.deployment_log import Entry, Pointer, pointer_key
from reshelve.deployments.release_table import Event
from reshelve.deployments.signed_entries import StoredEntry, entry_key, read_stored
from reshelve.lineage.run import Run
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import Signed, signed, signing_key
from reshelve.store.verdicts import signed_manifest
from reshelve.store.versions import sign_result


def judged(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """A gate's result on what the run has packaged, signed as the gate signs it."""
    return sign_result(run.ranker.name, run.stage("package").directory / "version", result)


def put_version(store: ObjectStore, ranker: str, version: int, **change: Any) -> None:
    """A signed version that the gate promoted, of one file that is no graph. `change`: of its manifest."""
    manifest = {
        "ranker": ranker, "version": version, "kind": "next_item", "created_at": "2011-08-31T03:00:00Z",
        "files": {"saved_model.pb": {"sha256": "0" * 64, "size": 1}},
        "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
        "gate": {"verdict": "promote"}, **change,
    }  # fmt: skip
    store.put(f"models/{ranker}/{version}/saved_model.pb", b"x")
    store.put_json(f"models/{ranker}/{version}/manifest.json", signed_manifest(manifest))


def put_entry(store: ObjectStore, entry: Entry, role: Role | None = None) -> StoredEntry:
    """Sign an entry, chain it to the one before it, and write it, in place of another one too.

    `role`: whose key signs; default: the person's where only theirs counts, else the release's.
    """
    role = role or (Role.PERSON if entry.action in (Event.APPROVE, Event.VOUCH) else Role.RELEASE)
    ranker = entry.pointer.ranker
    before = read_stored(store, ranker, entry.sequence - 1) if entry.sequence > 1 else None
    chained = entry.model_copy(update={"before": "" if before is None else before.digest})
    document = signed(chained.model_dump(mode="json"), signing_key(role), Signed.MOVE)
    body = json.dumps(document).encode()
    stored = StoredEntry(entry_key(ranker, entry.sequence), ranker, entry.sequence, body, datetime.now(UTC))
    store.put(stored.key, stored.body)
    return stored


def put_log(store: ObjectStore, entries: Iterable[Entry]) -> None:
    """A log of any states, for who reads moves by their number: it need be no legal way (`put_state` makes a state believed)."""
    for entry in entries:
        put_entry(store, entry)


def put_state(store: ObjectStore, pointer: Pointer) -> Pointer:
    """Make the log say this state: a person vouches for it, as the move after the newest one, or as its own number."""
    newest = pointer.sequence or 1
    while store.exists(entry_key(pointer.ranker, newest)):
        newest += 1
    moved = pointer.model_copy(
        update={
            "sequence": newest,
            "moved_at": pointer.moved_at or datetime.now(UTC),
            "by": pointer.by or "test",
        }
    )
    put_entry(store, Entry(sequence=newest, action=Event.VOUCH, pointer=moved), Role.PERSON)
    store.put_json(pointer_key(moved.ranker), moved.model_dump(mode="json"))
    return moved
