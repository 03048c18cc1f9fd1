"""What should serve, what serves, and what could: one look at every ranker."""

from __future__ import annotations

from typing import Any

from reshelve.config.ranker import ranker_names
from reshelve.deployments.audit import audited
from reshelve.deployments.deployment_log import deployed_rankers, log_problem, read_pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.protocol.reports import LIVE_SECONDS, read_reports
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import list_versions, read_manifest

_NEWEST = 5


def status(ranker: str | None = None) -> dict[str, Any]:
    """Per ranker: the pointer, what each agent reports and how long ago, the newest versions with their verdicts.

    What is damaged of one ranker is its `problem`, and no reason to say nothing of the others. Raises
    ConfigurationError for a ranker that has neither a file nor a deployment.
    """
    store = object_store()
    known = sorted({*ranker_names(), *deployed_rankers(store)})
    if ranker is not None and ranker not in known:
        raise ConfigurationError(f"no ranker {ranker!r}", f"known: {', '.join(known) or 'none'}")
    return {name: _whole(store, name) for name in ([ranker] if ranker else known)}


def _whole(store: ObjectStore, ranker: str) -> dict[str, Any]:
    try:
        return _of(store, ranker)
    except DataError as error:
        return {"problem": f"{error.headline}: {error.detail}" if error.detail else error.headline}


def _of(store: ObjectStore, ranker: str) -> dict[str, Any]:
    pointer = read_pointer(store, ranker)
    problem = log_problem(store, ranker)
    versions = list_versions(store, ranker)
    agents = [
        {
            "agent": report.agent,
            "server": report.server,
            "age_seconds": round(report.age(), 1),
            "live": report.age() < LIVE_SECONDS,
            "up_to_date": pointer is not None
            and report.sequence >= pointer.sequence
            and report.error is None,
            "serving": report.serving.model_dump(mode="json"),
            "error": report.error,
        }
        for report in read_reports(store, ranker)
    ]
    return {
        **({"problem": problem} if problem else {}),
        "pointer": None if pointer is None else pointer.model_dump(mode="json"),
        "agents": agents,
        "versions": len(versions),
        "newest": [_version(store, ranker, version) for version in reversed(versions[-_NEWEST:])],
    }


def _version(store: ObjectStore, ranker: str, version: int) -> dict[str, Any]:
    try:
        manifest = read_manifest(store, ranker, version)
    except DataError as error:
        return {"version": version, "problem": error.headline}
    if manifest is None:  # deleted since it was listed
        return {"version": version, "problem": "not published any more"}
    return {
        "version": version,
        "partition": manifest.lineage.partition.isoformat(),
        "verdict": manifest.gate.verdict,
        "metric": manifest.gate.metric,
        "value": (manifest.gate.challenger or {}).get("value"),
        "questions": manifest.gate.asked,
        "champion": manifest.gate.champion,
        "bytes": manifest.bytes,
    }


def history(ranker: str) -> dict[str, Any]:
    """Every move of a ranker's pointer, oldest first, and `problems`: where the log is no way through the table, or not signed."""
    entries, problems = audited(object_store(), ranker)
    lines = []
    for entry in entries:
        now = entry.pointer
        share = f" {now.share:.0%}" if now.share else ""
        when = "" if now.moved_at is None else f"{now.moved_at:%Y-%m-%d %H:%M:%S}"
        line = f"{entry.sequence:>5}  {when}  {entry.action:<9} stable {now.stable}, {now.state.value} {now.canary or ''}{share}"
        lines.append(
            {"line": f"{line}  {now.by}: {now.reason}", "action": entry.action, "evidence": entry.evidence,
             "pointer": now.model_dump(mode="json")}
        )  # fmt: skip
    return {"ranker": ranker, "entries": lines, "problems": problems}
