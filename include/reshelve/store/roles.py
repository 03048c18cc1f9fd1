"""The roles of keys. Apart from the keys themselves, so that whoever only names one does not load cryptography."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """For what a key's signatures count."""

    BUILD = "build"
    GATE = "gate"
    RELEASE = "release"
    PERSON = "person"
