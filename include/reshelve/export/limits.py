"""How much one request may ask: checked in the graph itself, so that it holds for every server and every way to it.

A server works on a request until it is done, whether or not the caller still waits: what is too much is refused first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reshelve.export.module import Answer, Function

MOST_BYTES = 262_144
"""Of all texts of a request together: some hundred times what an ordinary one has."""


def within_limits(function: Function, rows: Callable[[str], int]) -> Function:
    """`function`, refusing with INVALID_ARGUMENT an input of more than `rows(its name)` rows, and more than MOST_BYTES of text."""
    concrete: Any = function
    placed, named = concrete.structured_input_signature
    inputs: dict[str, tf.TensorSpec] = {spec.name: spec for spec in placed} | named
    most = {name: rows(name) for name in sorted(inputs)}
    said = " and ".join(f"{count} rows of {name}" for name, count in most.items())
    said = f"a request may have at most {said}, and {MOST_BYTES} bytes of text; it has"

    def limited(**given: tf.Tensor) -> Answer:
        sizes = tf.stack([tf.size(given[name]) for name in most])
        texts = [tf.reduce_sum(tf.strings.length(t)) for t in given.values() if t.dtype == tf.string]
        found = tf.concat([sizes, [tf.add_n(texts) if texts else 0]], 0)
        fits = tf.reduce_all(found <= [*most.values(), MOST_BYTES])
        with tf.control_dependencies([tf.debugging.Assert(fits, [said, found], summarize=len(most) + 1)]):
            given = {name: tf.identity(tensor) for name, tensor in given.items()}
        answer: Answer = function(
            *(given[spec.name] for spec in placed), **{name: given[name] for name in named}
        )
        return answer

    return tf.function(limited, autograph=False).get_concrete_function(**inputs)
