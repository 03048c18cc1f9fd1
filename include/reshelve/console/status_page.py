"""What serves, where, since when, and whether it is well: `reshelve status` for a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from reshelve.deployments.deployment_log import read_entry
from reshelve.errors import DataError
from reshelve.result_text import lines
from reshelve.store.objects import ObjectStore

_GONE_SECONDS = 86_400  # a host that was replaced is no host that ails; the watch forgets it after as long
_MOST_MOVES = 100  # looked through for the one that made a version stable


def page(store: ObjectStore, found: dict[str, Any], width: int | None) -> Iterator[str]:
    """The lines of what `status` found, a ranker after the other; wrapped to `width` where there is one."""
    if not found:
        yield "there is no ranker: add a file to include/rankers/"
    for number, (ranker, one) in enumerate(found.items()):
        if number:
            yield ""
        yield f"{ranker}: {_headline(one)}"
        for line in lines(_parts(store, ranker, one), width and width - 2):
            yield f"  {line}"


def _headline(one: dict[str, Any]) -> str:
    if "problem" in one and one.get("pointer") is None:
        return "damaged"
    if "problem" in one:
        return f"TAMPERED WITH, version {one['pointer']['stable'] or 'none'} stays in force"
    if one["pointer"] is None or one["pointer"]["stable"] is None:
        return "nothing serves yet"
    if not one["agents"]:
        return "no agent reports: it is unknown what serves"
    gone = {agent["agent"] for agent in one["agents"] if agent["age_seconds"] > _GONE_SECONDS}
    if len(gone) == len(one["agents"]):
        gone = set()  # none reports any more: that is no replaced host
    hindered = {agent["agent"]: _health(one, agent) for agent in one["agents"] if agent["agent"] not in gone}
    named = [f"agent {name} {health}" for name, health in hindered.items() if health != "healthy"]
    return "healthy" if not named else "NOT HEALTHY: " + "; ".join(named)


def _parts(store: ObjectStore, ranker: str, one: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {"problem": one["problem"]} if "problem" in one else {}
    if "versions" not in one:
        return parts
    pointer = one["pointer"]
    if pointer is not None:
        if pointer["stable"] is not None:
            parts["serves"] = f"version {pointer['stable']} since {_since(store, ranker, pointer)}"
        if pointer["previous"] is not None:
            parts["way back"] = f"version {pointer['previous']}"
        if pointer["canary"] is not None:
            parts["release"] = _release(pointer)
        parts["last move"] = (
            f"{_moment(pointer['moved_at'])} by {pointer['by'] or '–'}: {pointer['reason'] or '–'}"
        )
    if one["agents"]:
        parts["agents"] = [_agent(one, agent) for agent in one["agents"]]
    parts["published"] = f"{one['versions']} versions" if one["versions"] != 1 else "1 version"
    if one["newest"]:
        parts["newest"] = [_version(version) for version in one["newest"]]
    return parts


def _release(pointer: dict[str, Any]) -> str:
    share = f", {pointer['share']:.0%} of the requests" if pointer["share"] else ""
    held = f"; held: {pointer['held']}" if pointer["held"] else ""
    return f"version {pointer['canary']}: {pointer['state']}{share}{held}"


def _agent(one: dict[str, Any], agent: dict[str, Any]) -> dict[str, Any]:
    serving = agent["serving"]
    return {
        "agent": agent["agent"],
        "server": agent["server"],
        "answers with": serving["stable"],
        "loaded": list(serving["available"]) or "nothing",
        "heard from": _ago(agent["age_seconds"]),
        "health": _health(one, agent),
    }


def _health(one: dict[str, Any], agent: dict[str, Any]) -> str:
    """`healthy`, or what an agent's server lacks of what the pointer says."""
    stable = None if one["pointer"] is None else one["pointer"]["stable"]
    if not agent["live"]:
        return f"has been silent for {_ago(agent['age_seconds']).removesuffix(' ago')}"
    if agent["error"]:
        return f"says: {agent['error']}"
    if stable is not None and agent["serving"]["stable"] != stable:
        return f"answers with {agent['serving']['stable'] or 'nothing'} in place of {stable}"
    return "healthy" if agent["up_to_date"] else "has not seen the newest move"


def _version(version: dict[str, Any]) -> dict[str, Any]:
    if "problem" in version:
        return {"version": version["version"], "verdict": version["problem"]}
    measured = {version["metric"]: version["value"]} if version["metric"] else {}
    return {
        "version": version["version"],
        "partition": version["partition"],
        "verdict": version["verdict"],
        **measured,
        "size": f"{version['bytes'] / 1e6:.1f} MB",
    }


def _since(store: ObjectStore, ranker: str, pointer: dict[str, Any]) -> str:
    """When the stable version became it: the oldest of the newest moves that left it stable."""
    since, complete = pointer["moved_at"], False
    for sequence in range(pointer["sequence"], max(0, pointer["sequence"] - _MOST_MOVES), -1):
        try:
            entry = read_entry(store, ranker, sequence)
        except DataError:  # damaged: `reshelve log` says so, and this page is about what serves
            entry = None
        if entry is None or entry.pointer.stable != pointer["stable"]:
            complete = entry is not None
            break
        since = entry.pointer.moved_at and entry.pointer.moved_at.isoformat()
        complete = sequence == 1
    return _moment(since) if complete else f"{_moment(since)} or before"


def _moment(at: str | None) -> str:
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else "–"


def _ago(seconds: float) -> str:
    """`40 s ago`, in the largest unit that gives at least 2."""
    for name, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} s ago"
