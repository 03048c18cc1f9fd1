"""What the watch measured, as curves: latency and errors of each version that serves, and its newest decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from reshelve.notation import plain
from reshelve_airflow.releases.sparklines import sparkline

if TYPE_CHECKING:
    from reshelve.monitoring.observations import Observation, VersionTraffic

LOOKS = 36  # six hours of looks every ten minutes
DECISIONS = 8
_FULL_ERRORS = 0.01  # one failed request of a thousand is no mountain


@dataclass(frozen=True)
class TrafficCurves:
    """One version's latency and errors over the looks; `p95_ms` is the newest, `error_rate` that of all requests."""

    latency: Markup
    errors: Markup
    p95_ms: float | None
    error_rate: float | None
    requests: int


def curves(looks: Sequence[Observation], version: int) -> TrafficCurves | None:
    """The curves of a version; None where no look has seen it."""
    seen = [_of(look, version) for look in looks]
    known = [traffic for traffic in seen if traffic is not None]
    if not known:
        return None
    requests = sum(traffic.requests for traffic in known)
    latency = [None if traffic is None else traffic.p95_ms for traffic in seen]
    errors = [None if traffic is None else traffic.error_rate for traffic in seen]
    span = f"{looks[0].at:%H:%M} to {looks[-1].at:%H:%M} UTC"
    return TrafficCurves(
        sparkline(
            latency, _words(f"95th percentile of the latency of version {version}, {span}", latency, "ms")
        ),
        sparkline(
            errors,
            _words(
                f"share of failed requests of version {version}, {span}",
                [None if rate is None else 100 * rate for rate in errors],
                "%",
            ),
            at_least=_FULL_ERRORS,
        ),
        known[-1].p95_ms,
        sum(traffic.errors for traffic in known) / requests if requests else None,
        requests,
    )


def decisions(looks: Sequence[Observation]) -> list[Observation]:
    """The newest looks that decided anything but to do nothing, newest first; else the newest one that decided at all."""
    decided = [look for look in reversed(looks) if look.decision is not None]
    telling = [look for look in decided if look.decision and look.decision.action != "nothing"]
    return (telling or decided[:1])[:DECISIONS]


def _of(look: Observation, version: int) -> VersionTraffic | None:
    return next((traffic for traffic in look.versions if traffic.version == version), None)


def _words(what: str, values: Sequence[float | None], unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{what}: nothing measured"
    return f"{what}: last {plain(known[-1], 3)} {unit}, lowest {plain(min(known), 3)}, highest {plain(max(known), 3)}"
