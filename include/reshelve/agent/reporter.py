"""The agent's reports: per ranker, what its server has of it, what cannot be served here, and what hinders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from reshelve.agent.copier import Copier
from reshelve.agent.load_watch import LoadWatch
from reshelve.agent.server_plan import Observed
from reshelve.deployments.deployment_log import Pointer
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.protocol.host import HostWatch
from reshelve.protocol.pointers import Pointers
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.store.objects import ObjectStore

_REPORT_SECONDS = 10.0


class AgentReporter:
    """Writes a report where something changed, and every ten seconds as a sign of life."""

    def __init__(self, agent: str, server: str, store: ObjectStore, copier: Copier, models: Path) -> None:
        self._agent, self._server, self._store, self._copier = agent, server, store, copier
        self._host = HostWatch(server, models)
        self._written: dict[str, Report] = {}
        self._written_at: dict[str, float] = {}
        self.server_trouble: str | None = None
        self.refusal: str | None = None
        self.disk_trouble: str | None = None
        self.others_trouble: str | None = None

    def report(
        self,
        pointers: Pointers,
        observed: Mapping[str, Observed],
        loads: LoadWatch,
        others: frozenset[str],
    ) -> None:
        """Write what is due. `others`: names of models on this host that are not ours. Never raises for what S3 does."""
        for ranker, pointer in pointers.known.items():
            found = self._of(pointer, pointers, observed.get(ranker, Observed()), loads, ranker in others)
            due = time.monotonic() - self._written_at.get(ranker, float("-inf")) > _REPORT_SECONDS
            if due or not found.same_as(self._written.get(ranker)):
                found = found.model_copy(update={"host": self._host.look()})
                try:
                    write_report(self._store, ranker, found)
                except (TryAgainError, ConfigurationError) as error:  # a refusal may be mended while we run
                    logger(ranker=ranker).warning("not reported", problem=error.headline)
                    return
                self._written[ranker], self._written_at[ranker] = found, time.monotonic()

    def _of(
        self, pointer: Pointer, pointers: Pointers, seen: Observed, loads: LoadWatch, is_others: bool
    ) -> Report:
        ranker = pointer.ranker
        known = {**self._copier.failures(ranker), **loads.failures(ranker, seen)}
        if is_others:
            known |= dict.fromkeys(pointer.wanted, f"this host has a model {ranker} that is not Reshelve's")
        failures = {version: known[version] for version in sorted(known) if version in pointer.wanted}
        problems = [
            self.server_trouble,
            pointers.damaged.get(ranker),
            self.refusal,
            self.disk_trouble,
            self.others_trouble,
            *self._copier.troubles(ranker),
            *dict.fromkeys(failures.values()),
        ]
        return Report(
            agent=self._agent,
            server=self._server,
            at=datetime.now(UTC),
            sequence=pointer.sequence,
            serving=Serving(
                stable=seen.labels.get("stable"),
                previous=pointer.previous if pointer.previous in seen.available else None,
                canary=seen.labels.get("canary"),
                available=tuple(sorted(seen.available)),
                labels=dict(sorted(seen.labels.items())),
            ),
            failures=failures,
            error="; ".join(problem for problem in problems if problem) or None,
        )
