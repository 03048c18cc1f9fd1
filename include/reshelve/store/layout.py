"""Where things lie in the bucket, said once: the folder of each, with its slash. What is below is said by who writes it."""

from __future__ import annotations

RUNS = "runs/"
MODELS = "models/"
DEPLOYMENTS = "deployments/"
REQUESTS = "requests/"


def models_of(ranker: str) -> str:
    """A ranker's versions: a folder each."""
    return f"{MODELS}{ranker}/"


def deployments_of(ranker: str) -> str:
    """Its pointer and log, and what agents and callers report."""
    return f"{DEPLOYMENTS}{ranker}/"


def runs_of(ranker: str) -> str:
    """Its nights: a folder for each day, and in it one for each run."""
    return f"{RUNS}{ranker}/"


def run_folder(run: str) -> str:
    """What one run (`<ranker>/<day>/<digest>`) has made: a folder for each stage."""
    return f"{RUNS}{run}/"


def requests_of(ranker: str) -> str:
    """What its customers asked, where callers log a share: a folder for each day."""
    return f"{REQUESTS}{ranker}/"


def monitoring_of(ranker: str) -> str:
    """What the watch remembers of it, and has found."""
    return f"monitoring/{ranker}/"


def encoded_of(ranker: str) -> str:
    """Vectors of its titles: a folder for each encoder that read them."""
    return f"encoded/{ranker}/"
