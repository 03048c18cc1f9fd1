"""Orders of many values of which only the first count: as a full, stable sort would have them, ties included, at less cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray

_SIGN = np.uint32(0x80000000)
_PLACE = np.uint64(0xFFFFFFFF)


def first_of(keys: Sequence[Array], count: int) -> Array:
    """Places of the `count` least by the first key [n], ties by the next, then by place: int64 [count or n].

    The same as `np.lexsort(keys[::-1])[:count]`, without an order of all the others.
    """
    sure: list[Array] = []
    pool, left = np.arange(len(keys[0])), count
    for key in keys:
        if left <= 0 or left >= len(pool):
            break
        values = key[pool]
        edge = np.partition(values, left - 1)[left - 1]
        if edge != edge:  # NaN, which sorts last and equals nothing: the pool decides
            break
        sure.append(pool[values < edge])
        left -= len(sure[-1])
        pool = pool[values == edge]
    else:
        pool = pool[:left]
    found = np.sort(np.concatenate([*sure, pool]))
    return found[np.lexsort([key[found] for key in reversed(keys)])][: max(0, count)]


def descending(values: Array) -> Array:
    """Places of finite float32 `values` [..., n], greatest first, ties by place: int64 [..., n].

    The same as `np.argsort(-values, axis=-1, kind="stable")`. Value and place are one whole number, no two of which are
    equal, so that numpy's quickest sort is a stable one.
    """
    keys = _packed(values)
    keys.sort(axis=-1)
    return (keys & _PLACE).astype(np.int64)


def greatest(values: Array, count: int) -> Array:
    """The first `count` of `descending`: [..., count or n]."""
    keys = _packed(values)
    if count < keys.shape[-1]:
        keys = np.partition(keys, count - 1, axis=-1)[..., :count]
    keys.sort(axis=-1)
    return (keys & _PLACE).astype(np.int64)


def _packed(values: Array) -> Array:
    # The bits of a float count up with it, or down where it is negative. Adding 0.0 makes one zero of two.
    bits = np.ascontiguousarray(0.0 - values, np.float32).view(np.uint32)
    upward = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (upward.astype(np.uint64) << np.uint64(32)) | np.arange(values.shape[-1], dtype=np.uint64)
