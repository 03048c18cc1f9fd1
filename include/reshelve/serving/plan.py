"""The agent's judgement, as a pure function: what a server should be told next about one ranker.

A server never jumps to the wanted state; it takes the next safe step. Load first, with the labels where they
are; move a label only to a version that is AVAILABLE; drop a version only when no label points at it any more.
Each step is computed from what the server really has, so a restart of either side needs no memory of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from reshelve.serving.model_config import ModelEntry
from reshelve.store.deployments import Pointer


class State(StrEnum):
    """What a model server says of a version."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Observed:
    """What one server really has of one ranker."""

    states: Mapping[int, State] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)  # versions whose load ended in an error

    @property
    def available(self) -> frozenset[int]:
        """Versions that answer."""
        return frozenset(version for version, state in self.states.items() if state is State.AVAILABLE)

    @property
    def held(self) -> frozenset[int]:
        """Versions whose files the server may still read."""
        return frozenset(version for version, state in self.states.items() if state is not State.END)


def wanted_labels(pointer: Pointer) -> dict[str, int]:
    """Label → version when the pointer is fulfilled."""
    found = {"stable": pointer.stable, "canary": pointer.canary}
    return {label: version for label, version in found.items() if version is not None}


def next_entry(
    pointer: Pointer,
    observed: Observed,
    local: frozenset[int],
    base_path: Path,
    unload: frozenset[int] = frozenset(),
) -> ModelEntry | None:
    """The configuration to send next, or None where the server should not know this ranker (yet).

    `local` are the verified versions on this disk: nothing else is ever listed. `unload` are failed versions to
    leave out once, because a server tries a failed version again only after it was gone from the list.
    """
    usable = local - unload
    labels: dict[str, int] = {}
    for label, version in wanted_labels(pointer).items():
        if version in observed.available & usable:
            labels[label] = version
        elif observed.labels.get(label) in observed.available & usable:
            labels[label] = observed.labels[label]  # stays where it is until the new version is AVAILABLE
    still_labelled = frozenset(observed.labels.values())
    versions = (pointer.wanted | still_labelled) & usable
    return ModelEntry(pointer.ranker, base_path, versions, labels) if versions else None


def must_reload(entry: ModelEntry | None, applied: ModelEntry | None, observed: Observed) -> bool:
    """Whether the server has to be told: the entry is new, or the server lost what it was told (a restart)."""
    if entry != applied:
        return True
    if entry is None:
        return False
    unknown = entry.versions - frozenset(observed.states)
    return bool(unknown) or dict(observed.labels) != dict(entry.labels)


def fulfilled(pointer: Pointer, observed: Observed) -> bool:
    """Whether the server serves exactly what the pointer wants."""
    return pointer.wanted <= observed.available and dict(observed.labels) == wanted_labels(pointer)


def removable(
    pointer: Pointer, observed: Observed, applied: ModelEntry | None, local: frozenset[int]
) -> frozenset[int]:
    """Local versions that nobody needs: not wanted, not listed, not held by the server."""
    listed = applied.versions if applied else frozenset()
    return local - pointer.wanted - listed - observed.held
