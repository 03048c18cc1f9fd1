"""The object store of a caller, opened when it is asked for: boto3 is loaded then, not with the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reshelve.store.objects import ObjectStore


def object_store() -> ObjectStore:
    """The bucket that the settings name. Raises ConfigurationError where they name none."""
    from reshelve.store.objects import object_store as opened

    return opened()
