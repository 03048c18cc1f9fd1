"""The client library: what a shop's application calls for an answer.

    from reshelve.client import Caller, object_store

    with Caller("recommend", ["10.0.0.5:8500"], object_store()) as ranker:
        ranker.predict({"history": ["red mug"]}, session="c81e…")

What is named here is public; every other module of the package is its own. Importing it loads neither TensorFlow nor Airflow
nor boto3. What it raises: `reshelve.client.errors`.
"""

from reshelve.client.asking import Answer
from reshelve.client.client import RankingClient, serves
from reshelve.client.errors import (
    BusyError,
    ConfigurationError,
    NothingServesError,
    RequestRefusedError,
    ReshelveError,
    ServerAwayError,
    TooSlowError,
    TryAgainError,
    VersionFailedError,
)
from reshelve.client.routing import Caller
from reshelve.client.store import object_store

__all__ = [
    "Answer",
    "BusyError",
    "Caller",
    "ConfigurationError",
    "NothingServesError",
    "RankingClient",
    "RequestRefusedError",
    "ReshelveError",
    "ServerAwayError",
    "TooSlowError",
    "TryAgainError",
    "VersionFailedError",
    "object_store",
    "serves",
]
