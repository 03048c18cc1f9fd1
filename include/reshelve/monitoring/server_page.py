"""What a model server's own Prometheus page says of one model: its requests, and how busy TensorFlow was.

Refusals for want of a thread are not there: the server counts only what it begins. Callers count them (`Counts.refusals`).
"""

from __future__ import annotations

import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from reshelve.settings import settings

_PATH = "/monitoring/prometheus/metrics"
_REQUESTS = ":tensorflow:serving:request_count"
_RUNTIME = ":tensorflow:serving:runtime_latency_sum"
_PATIENCE = 2.0  # seconds

Page = dict[str, float]


def read_page(ranker: str) -> Page:
    """Totals since the server started: `requests`, `busy_seconds`; empty where it is not reached."""
    url = f"http://{settings().model_server_rest}{_PATH}"
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            text = answer.read().decode(errors="replace")
    except (urllib.error.URLError, OSError):
        return {}
    return parse_page(text, ranker)


def parse_page(text: str, ranker: str) -> Page:
    """The totals of one model; empty where the page is none or does not have it."""
    found: Page = {}
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError:
        return {}
    for sample in samples:
        if sample.labels.get("model_name") != ranker:
            continue
        if sample.name in (_REQUESTS, f"{_REQUESTS}_total"):
            _add(found, "requests", sample.value)
        elif sample.name == _RUNTIME:
            _add(found, "busy_seconds", sample.value / 1e6)
    return found


def since(page: Page, before: Page, seconds: float) -> dict[str, float]:
    """Names of `Observation.measured` → how it was since the look before; empty where that cannot be told."""
    began_anew = any(page.get(name, 0) < value for name, value in before.items())
    if not page or not before or began_anew or seconds <= 0:
        return {}
    return {
        "server_requests": page.get("requests", 0) - before.get("requests", 0),
        "server_busy": round((page.get("busy_seconds", 0) - before.get("busy_seconds", 0)) / seconds, 4),
    }


def _add(page: Page, name: str, value: float) -> None:
    page[name] = page.get(name, 0) + value
