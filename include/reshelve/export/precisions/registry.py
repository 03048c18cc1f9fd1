"""The precisions that there are, by the name in compression.json."""

from __future__ import annotations

from reshelve.errors import DataError
from reshelve.export.precisions.base import Precision
from reshelve.export.precisions.bf16 import Bf16
from reshelve.export.precisions.float32 import Float32
from reshelve.export.precisions.int8 import Int8

PRECISIONS: dict[str, type[Precision]] = {each.name: each for each in (Float32, Bf16, Int8)}


def precision_named(name: str) -> type[Precision]:
    """The one of that name. Raises DataError where there is none."""
    if name not in PRECISIONS:
        raise DataError(f"precision {name!r} is not known", f"expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
