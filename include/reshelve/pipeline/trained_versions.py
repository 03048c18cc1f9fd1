"""Published versions by the days that they were trained on, and when each goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import date
from typing import Any

from reshelve.config.ranker import read_ranker
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.pipeline.source_runs import days_read
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import list_versions, read_manifest


def trained_on(
    store: ObjectStore, ranker: str, days: Collection[date], mark: str, problem: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """A ranker's versions that were trained on one of `days`, unless their run left out whom `mark` names.

    Each as `ranker`, `version`, `serves`, `goes`. `problem` is told of versions that cannot be read.
    """
    pointer, versions = read_pointer(store, ranker), list_versions(store, ranker)
    for place, version in enumerate(versions):
        try:
            manifest = read_manifest(store, ranker, version)
        except DataError as error:
            problem(f"{ranker} version {version}: {error.headline}")
            continue
        lineage = manifest.lineage if manifest else None
        trained = {date.fromisoformat(day) for day in lineage.verdicts} if lineage else set()
        if lineage and not trained.isdisjoint(days) and days_read(store, lineage.run, mark) != set():
            serves = pointer is not None and version in pointer.wanted
            goes = _goes(ranker, len(versions) - place - 1, serves)
            yield {"ranker": ranker, "version": version, "serves": serves, "goes": goes}


def _goes(ranker: str, newer: int, serves: bool) -> str:
    """When housekeeping deletes a version that has so many newer ones."""
    try:
        left = max(0, read_ranker(ranker).release.keep - newer)
    except ConfigurationError:
        return "when its ranker file can be read again, by housekeeping"
    said = f"after {left} newer versions" if left else "with the next housekeeping"
    return f"{said}, once it is neither stable, previous nor canary" if serves else said
