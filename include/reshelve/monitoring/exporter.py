"""The newest look at every ranker as Prometheus metrics: `reshelve metrics`.

Looks carry what happened since the look before; Prometheus wants counters that only rise, so this process adds them up
from its start. A look is counted once. Nothing is labelled by session, query or item.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reshelve.deployments.deployment_log import deployed_rankers
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.monitoring.observations import Action, Condition, Observation, recent
from reshelve.store.objects import ObjectStore, impatient_store

_READ_SECONDS = 10.0  # a look is made every ten minutes
_LOOKS = 6

METRICS = {
    "reshelve_requests": "Requests of a version, counted by its clients.",
    "reshelve_request_errors": "Requests that a version or its server failed.",
    "reshelve_rejected_requests": "Invalid requests, rejected by a version.",
    "reshelve_refusals": "Attempts refused by model servers because all threads were busy.",
    "reshelve_latency_milliseconds": "A quantile of a version's latency, in the newest look.",
    "reshelve_click_through": "Share of a version's logged requests that led to a click, for the newest joined day.",
    "reshelve_measured": "Other measurements of the newest look: drift, deviations, calibration, the model server's load.",
    "reshelve_found": "1 if the newest look found the condition, else 0.",
    "reshelve_actions": "Actions taken by the watch.",
    "reshelve_releases_held": "1 during a release freeze.",
    "reshelve_agent_live": "1 if the agent is reporting.",
    "reshelve_server_memory_bytes": "Resident memory of an agent's model server.",
    "reshelve_look_age_seconds": "Age of the newest look, in seconds.",
    "reshelve_store_reachable": "1 if the object store answered.",
}
"""Name (counters without their `_total`) → what it says."""


class Looks(Collector):
    """Reads looks when it is asked, at most every ten seconds. The store away is a metric, never an error."""

    def __init__(self, store: ObjectStore, began: datetime | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._newest: dict[str, Observation] = {}
        self._counted: dict[str, datetime] = {}
        self._began = began or datetime.now(UTC) - timedelta(hours=1)
        self._requests: dict[tuple[str, str, str], float] = {}
        self._errors: dict[tuple[str, str, str], float] = {}
        self._rejected: dict[tuple[str, str, str], float] = {}
        self._refusals: dict[tuple[str, str, str], float] = {}
        self._clicks: dict[tuple[str, str], float] = {}
        self._actions: dict[tuple[str, str], float] = {}
        self._reachable = 0.0
        self._read_at = float("-inf")

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        with self._lock:
            if time.monotonic() - self._read_at >= _READ_SECONDS:
                self._read()
            return [*self._counters(), *self._gauges()]

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            for ranker in deployed_rankers(self._store):
                for look in recent(self._store, ranker, _LOOKS):
                    if look.at > self._counted.get(ranker, self._began):
                        self._count(look)
                    self._newest[ranker] = look
            self._reachable = 1.0
        except (TryAgainError, ConfigurationError) as error:
            self._reachable = 0.0
            logger().warning("the looks are not read", problem=error.headline)

    def _count(self, look: Observation) -> None:
        self._counted[look.ranker] = look.at
        for seen in look.versions:
            key = (look.ranker, str(seen.version), seen.role.value)
            self._requests[key] = self._requests.get(key, 0) + seen.requests
            self._errors[key] = self._errors.get(key, 0) + seen.errors
            self._rejected[key] = self._rejected.get(key, 0) + seen.rejected
            self._refusals[key] = self._refusals.get(key, 0) + seen.refusals
            if seen.click_through is not None:
                self._clicks[look.ranker, str(seen.version)] = seen.click_through
        if look.decision is not None and look.decision.done:
            done = (look.ranker, look.decision.action.value)
            self._actions[done] = self._actions.get(done, 0) + 1

    def _counters(self) -> Iterable[Metric]:
        labels = ("ranker", "version", "role")
        for name, values in (
            ("reshelve_requests", self._requests),
            ("reshelve_request_errors", self._errors),
            ("reshelve_rejected_requests", self._rejected),
            ("reshelve_refusals", self._refusals),
        ):
            family = CounterMetricFamily(name, METRICS[name], labels=labels)
            for key, value in sorted(values.items()):
                family.add_metric(key, value)
            yield family
        actions = CounterMetricFamily(
            "reshelve_actions", METRICS["reshelve_actions"], labels=("ranker", "action")
        )
        for ranker in sorted(self._newest):
            for action in Action:
                actions.add_metric((ranker, action.value), self._actions.get((ranker, action.value), 0))
        yield actions

    def _gauges(self) -> Iterable[Metric]:
        latency = _gauge("reshelve_latency_milliseconds", "ranker", "version", "role", "quantile")
        clicks = _gauge("reshelve_click_through", "ranker", "version")
        measured = _gauge("reshelve_measured", "ranker", "name")
        found = _gauge("reshelve_found", "ranker", "condition")
        held = _gauge("reshelve_releases_held", "ranker")
        live = _gauge("reshelve_agent_live", "ranker", "agent")
        memory = _gauge("reshelve_server_memory_bytes", "ranker", "agent")
        age = _gauge("reshelve_look_age_seconds", "ranker")
        for key, value in sorted(self._clicks.items()):
            clicks.add_metric(key, value)
        for ranker, look in sorted(self._newest.items()):
            for seen in look.versions:
                for quantile, milliseconds in (
                    ("0.5", seen.p50_ms),
                    ("0.95", seen.p95_ms),
                    ("0.99", seen.p99_ms),
                ):
                    if milliseconds is not None:
                        latency.add_metric(
                            (ranker, str(seen.version), seen.role.value, quantile), milliseconds
                        )
            for name, number in sorted(look.measured.items()):
                measured.add_metric((ranker, name), number)
            conditions = {finding.condition for finding in look.findings}
            for condition in Condition:
                if condition is not Condition.QUIET:
                    found.add_metric((ranker, condition.value), float(condition in conditions))
            held.add_metric((ranker,), float(bool(look.held)))
            age.add_metric((ranker,), (datetime.now(UTC) - look.at).total_seconds())
            for agent in look.agents:
                live.add_metric((ranker, agent.agent), float(agent.live))
                if agent.memory_bytes is not None:
                    memory.add_metric((ranker, agent.agent), agent.memory_bytes)
        reachable = _gauge("reshelve_store_reachable")
        reachable.add_metric((), self._reachable)
        return [latency, clicks, measured, found, held, live, memory, age, reachable]


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, METRICS[name], labels=labels)


def serve(address: str, port: int) -> None:
    """Answer Prometheus until SIGTERM. Raises ConfigurationError where the port is taken."""
    registry = CollectorRegistry()
    registry.register(Looks(impatient_store()))
    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise ConfigurationError(f"{address}:{port} cannot be listened on", str(error)) from error
    logger(address=address, port=server.server_port).info("metrics")
    thread.join()
