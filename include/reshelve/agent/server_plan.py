"""The agent's judgement, as pure functions: what a server should be told next, and what it may start from.

A server never jumps to the wanted state; it takes the next safe step. Load first, with the labels where they
are; move a label only to a version that is AVAILABLE; drop a version only when no label points at it any more.
Each step is computed from what the server really has, so a restart of either side needs no memory of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reshelve.agent.placeholder import PLACEHOLDER
from reshelve.deployments.deployment_log import Pointer
from reshelve.protocol.model_config import ModelEntry

Copy = tuple[str, int]  # ranker, version


class VersionState(StrEnum):
    """What a model server says of a version."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"
    UNKNOWN = "UNKNOWN"


_COMING = (VersionState.START, VersionState.LOADING)


@dataclass(frozen=True)
class Observed:
    """What one server really has of one ranker."""

    states: Mapping[int, VersionState] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)  # versions whose load ended in an error
    placeholder: bool = False  # whether the server has the graph that makes the ranker known to it
    placeholder_failed: bool = False

    @property
    def available(self) -> frozenset[int]:
        """Versions that answer."""
        return frozenset(version for version, state in self.states.items() if state is VersionState.AVAILABLE)

    @property
    def loading(self) -> frozenset[int]:
        """Versions that the server is bringing up."""
        return frozenset(version for version, state in self.states.items() if state in _COMING)

    @property
    def held(self) -> frozenset[int]:
        """Versions whose files the server may still read."""
        return frozenset(version for version, state in self.states.items() if state is not VersionState.END)

    @property
    def known(self) -> bool:
        """Whether the server has a model of this name: no reload has to wait for it."""
        return bool(self.held) or self.placeholder


def wanted_labels(pointer: Pointer) -> dict[str, int]:
    """Label → version when the pointer is fulfilled."""
    found = {"stable": pointer.stable, "canary": pointer.canary}
    return {label: version for label, version in found.items() if version is not None}


def next_entry(
    pointer: Pointer,
    observed: Observed,
    local: frozenset[int],
    base_path: Path,
    loads: frozenset[int] = frozenset(),
) -> ModelEntry | None:
    """The configuration to send next, or None where the server should not know this ranker (yet).

    `local` are the verified versions on this disk, and what the server has AVAILABLE of those that are not allowed here any
    more: nothing else is ever listed. `loads` are versions that the server has
    been told of a moment ago, or is to load now.
    """
    labels: dict[str, int] = {}
    for label, version in wanted_labels(pointer).items():
        if version in observed.available & local:
            labels[label] = version
        elif observed.labels.get(label) in observed.available & local:
            labels[label] = observed.labels[label]  # stays where it is until the new version is AVAILABLE
    still_labelled = frozenset(observed.labels.values())
    had = observed.available | observed.loading
    versions = ((pointer.wanted | still_labelled) & had | loads & pointer.wanted) & local
    return ModelEntry(pointer.ranker, base_path, versions, labels) if versions else None


def missing(pointer: Pointer, observed: Observed, local: frozenset[int]) -> list[int]:
    """Wanted versions on this disk that the server does not have: the stable first, then the way back, then the canary."""
    first = (pointer.stable, pointer.previous, pointer.canary)
    return [v for v in first if v is not None and v in local and v not in observed.held]


def choose_loads(
    candidates: Iterable[tuple[Pointer, int]], under_way: Collection[Copy], suspects: Collection[Copy]
) -> list[Copy]:
    """What the server is to load next: one version at a time, so that it is known which one ends it.

    A stable version waits for no other ranker's canary: it is loaded beside one other version, which leaves no load thread
    of the two free. A suspect is loaded when nothing else is.
    """
    order = sorted(candidates, key=lambda c: (c[1] != c[0].stable, c[1] == c[0].canary, c[0].ranker))
    chosen: list[Copy] = []
    for pointer, version in order:
        copy, busy = (pointer.ranker, version), len(under_way) + len(chosen)
        if copy in under_way:
            continue
        if busy and (copy in suspects or any(other in suspects for other in [*under_way, *chosen])):
            continue
        if busy < (2 if version == pointer.stable else 1):
            chosen.append(copy)
    return chosen


def start_entry(
    pointer: Pointer, proven: frozenset[int], base_path: Path, *, narrow: bool = False
) -> ModelEntry | None:
    """What a server may start from: versions that were AVAILABLE here and that the pointer still wants.

    The stable version and the way back; the canary is loaded when customers are served. Until the stable version has
    answered here, its label stays at the one before it. `narrow`: one version without a label, for a server that does not
    come back (one without our flags ends at its start where the file has a label).
    """
    ways = [v for v in (pointer.stable, pointer.previous) if v is not None and v in proven]
    if not ways:
        return None
    if narrow:
        return ModelEntry(pointer.ranker, base_path, frozenset(ways[:1]))
    return ModelEntry(pointer.ranker, base_path, frozenset(ways), {"stable": ways[0]})


def must_reload(entry: ModelEntry | None, applied: ModelEntry | None, observed: Observed) -> bool:
    """Whether the server has to be told: the entry is new, or the server lost what it was told (a restart)."""
    if entry != applied:
        return True
    if entry is None:
        return False
    seen = set(observed.states) | ({PLACEHOLDER} if observed.placeholder else set())
    return bool(entry.versions - seen) or dict(observed.labels) != dict(entry.labels)


def removable(
    pointer: Pointer, observed: Observed, applied: ModelEntry | None, local: frozenset[int]
) -> frozenset[int]:
    """Local versions that nobody needs: not wanted, not listed, not held by the server."""
    listed = applied.versions if applied else frozenset()
    return local - pointer.wanted - listed - observed.held
