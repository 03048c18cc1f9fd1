"""The calls of an MLflow tracking server that a night needs, over MLflow's REST API 2.0.

| variable | |
|---|---|
| `RESHELVE_MLFLOW_TRACKING_URI`, else `MLFLOW_TRACKING_URI` | the server, http or https; empty: nothing is sent |
| `MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_PASSWORD` | basic authentication, as MLflow's own client reads them |
| `MLFLOW_TRACKING_TOKEN` | a bearer token in its place |
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from reshelve.errors import ConfigurationError, TryAgainError

SETTING = "RESHELVE_MLFLOW_TRACKING_URI"
_PATIENCE = 60.0  # seconds: a server that was just started takes its time for the first call
_METRICS, _PARAMS, _TAGS = 500, 100, 100  # the most of one call, below MLflow's own limits
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters


class Tracking:
    """One tracking server. Every call raises TryAgainError where it is away, ConfigurationError where it refuses.

    No message holds its address: that may hold a password.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def open(cls, uri: str) -> Iterator[Tracking]:
        """The server at `uri`. Raises ConfigurationError where that is no http(s) address."""
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"{SETTING}: expected the http(s) address of an MLflow tracking server",
                f"its scheme is {parts.scheme or 'missing'}; MLflow's own file and database stores have no address",
            )
        host = parts.netloc.rpartition("@")[2]
        base = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/api/2.0/"
        with httpx.Client(
            base_url=base, timeout=_PATIENCE, transport=httpx.HTTPTransport(retries=2), **_credentials(parts)
        ) as client:
            yield cls(client)

    def experiment(self, name: str) -> str:
        """The id of an experiment, made where there is none."""
        found = self._ask("GET", "experiments/get-by-name", {"experiment_name": name}, missing_is=None)
        if found is not None:
            return str(found["experiment"]["experiment_id"])
        return str(self._ask("POST", "experiments/create", {"name": name})["experiment_id"])

    def runs(self, experiment: str, where: str) -> list[dict[str, Any]]:
        """Runs of an experiment by a filter of MLflow's, newest first, at most 1,000."""
        asked = {"experiment_ids": [experiment], "filter": where, "max_results": 1000}
        return list(self._ask("POST", "runs/search", asked).get("runs") or [])

    def new_run(self, experiment: str, name: str, tags: Mapping[str, str], began_ms: int) -> dict[str, Any]:
        """Begin a run."""
        asked = {"experiment_id": experiment, "run_name": name, "start_time": began_ms, "tags": _pairs(tags)}
        return dict(self._ask("POST", "runs/create", asked)["run"])

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Parameters, tags and metrics (name, value, step, milliseconds since 1970), in as many calls as they need."""
        points = [
            {"key": name, "value": value, "step": step, "timestamp": at} for name, value, step, at in metrics
        ]
        for key, entries, most in (
            ("params", _pairs(params or {}, _LONGEST_PARAM), _PARAMS),
            ("tags", _pairs(tags or {}), _TAGS),
            ("metrics", points, _METRICS),
        ):
            for start in range(0, len(entries), most):
                self._ask("POST", "runs/log-batch", {"run_id": run, key: entries[start : start + most]})

    def end(self, run: str, status: str, ended_ms: int) -> None:
        """Close a run: FINISHED or FAILED."""
        self._ask("POST", "runs/update", {"run_id": run, "status": status, "end_time": ended_ms})

    def upload(self, artifact_uri: str, name: str, body: bytes) -> bool:
        """Put a file beside a run; False where the server does not serve artifacts itself, which needs its store's own client."""
        place = urlsplit(artifact_uri)
        if place.scheme != "mlflow-artifacts":
            return False
        path = quote(f"{place.path.strip('/')}/{name}")
        self._send("PUT", f"mlflow-artifacts/artifacts/{path}", content=body)
        return True

    def registered(self, name: str, description: str) -> None:
        """Make a registered model where there is none."""
        if self._ask("GET", "registered-models/get", {"name": name}, missing_is=None) is None:
            self._ask("POST", "registered-models/create", {"name": name, "description": description})

    def model_version(
        self, name: str, run: str, source: str, description: str, tags: Mapping[str, str]
    ) -> str:
        """The number of the registered model's version of a run, made where there is none; its tags are renewed."""
        asked = {"filter": f"run_id='{run}'", "max_results": 1000}
        versions = self._ask("GET", "model-versions/search", asked).get("model_versions") or []
        for found in versions:
            if found["name"] == name and found.get("source") == source:
                for tag in _pairs(tags):
                    self._ask(
                        "POST", "model-versions/set-tag", {"name": name, "version": found["version"], **tag}
                    )
                return str(found["version"])
        asked = {"name": name, "source": source, "run_id": run, "description": description}
        made = self._ask("POST", "model-versions/create", {**asked, "tags": _pairs(tags)})
        return str(made["model_version"]["version"])

    def _ask(self, method: str, path: str, asked: Mapping[str, Any], **more: Any) -> Any:
        sent = {"params": asked} if method == "GET" else {"json": asked}
        return self._send(method, f"mlflow/{path}", **sent, **more)

    def _send(self, method: str, path: str, **sent: Any) -> Any:
        """The answer's JSON. With `missing_is` that, where what is asked for does not exist."""
        tolerant, missing = "missing_is" in sent, sent.pop("missing_is", None)
        try:
            answer = self._client.request(method, path, **sent)
        except httpx.HTTPError as error:
            raise TryAgainError(f"the MLflow server cannot be reached: {type(error).__name__}") from None
        said = _json(answer)
        if answer.is_success:
            return said
        if tolerant and said.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
            return missing
        told = f"MLflow answered {answer.status_code} to {path.removeprefix('mlflow/').partition('?')[0]}"
        detail = str(said.get("message") or said.get("error_code") or "")[:500]
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise TryAgainError(told, detail)
        raise ConfigurationError(told, detail)


def _credentials(parts: Any) -> dict[str, Any]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"headers": {"Authorization": f"Bearer {token}"}}
    # In an address @, : and / of a name or a password are percent-encoded.
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    return {"auth": (user, password or "")} if user else {}


def _pairs(values: Mapping[str, str], longest: int = _LONGEST_TAG) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:longest]} for key, value in values.items()]


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
