"""Make a store ready for a platform: its bucket, and the proof that it keeps what releases rely on."""

from __future__ import annotations

from typing import Any

from reshelve.store.conditions import CHECKS_PREFIX, require_conditional_writes
from reshelve.store.objects import ObjectStore, object_store


def prepare_store(store: ObjectStore) -> ObjectStore:
    """Make the bucket where it is missing, and prove conditional writes. Raises ConfigurationError where they do not hold."""
    store.create_bucket()
    require_conditional_writes(store, CHECKS_PREFIX)
    return store


def check_store() -> dict[str, Any]:
    """`prepare_store` for the store of this process's settings; where it is, and what holds there."""
    store = prepare_store(object_store())
    return {
        "bucket": store.bucket,
        "endpoint": str(store.client.meta.endpoint_url),
        "conditional_writes": True,
        "checksums": store.checksums,
    }
