"""The kinds there are, and the object of each. Nobody else imports a kind."""

from __future__ import annotations

from reshelve.config.kind_names import kind_names, kind_object
from reshelve.errors import ConfigurationError
from reshelve.kind import Kind

__all__ = ["kind_names", "kind_of", "stages_of"]

# Of every night; `pipeline/stages.py` declares each.
_FIRST, _THEN = ("examples", "tune", "train"), ("compress", "package", "gate", "publish")


def kind_of(name: str) -> Kind:
    """The kind called `name`. Raises ConfigurationError with the known ones where there is none."""
    found = kind_object(name)
    if not isinstance(found, Kind) or found.name != name:
        raise ConfigurationError(
            f"the kind {name!r} is not of its name", "expected KIND = a Kind whose name that is"
        )
    return found


def stages_of(name: str) -> list[str]:
    """The stages of a night of that kind, in order: the kind's own come between train and compress."""
    return [*_FIRST, *(stage.name for stage in kind_of(name).stages), *_THEN]
