"""How large a version will be, by the shape of its model and what it holds: known before anything is trained.

Its graph is one protobuf message, which may have MOST_BYTES: what is larger would be trained for hours, and then not be
written. What grows with the catalogue is in the variables beside it, which a disk and a server's memory have to hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reshelve.model.description import Architecture, ModelForm

MOST_BYTES = 2**31 - 1
"""Of a protobuf message; it counts its own bytes in 32 bits."""

FLOAT = "float32"
_NUMBER = {FLOAT: 4, "bfloat16": 2, "int8": 1}
INT = 4  # bytes of an int32, and of a float32
# Operations and their names, and what the tokenizer does to each code point. They depend on no catalogue.
_OPERATIONS = 400_000
_PER_LAYER = 40_000
_CODE_POINTS = 330_000


@dataclass(frozen=True)
class GraphTables:
    """Bytes that a version holds beside its model. `catalogue`: by its items and their titles. `remembered`: at most, by what was asked.

    `in_graph`: they are constants of the graph, not variables. `constants`: of the graph, whatever the catalogue is.
    """

    catalogue: int
    remembered: int = 0
    in_graph: bool = False
    constants: int = 0


@dataclass(frozen=True)
class GraphSize:
    """Bytes of a version, and of its graph alone.

    `items`: what of the graph grows with the catalogue. `least`: the graph that every version of this base and catalogue has,
    however few layers it keeps. `most`: the graph with all layers and all that may be remembered. `version`: that with its
    variables, in float. `served`: the same at the precision of the compression steps.
    """

    items: int
    least: int
    most: int
    version: int
    served: int

    @classmethod
    def of(cls, form: ModelForm, tokenizer: Path, tables: GraphTables, precision: str = FLOAT) -> GraphSize:
        """`form` with the catalogue's size; `tokenizer` is the base's tokenizer.json."""
        vocabulary = vocabulary_bytes(tokenizer)
        fixed = vocabulary + _CODE_POINTS + _OPERATIONS + tables.constants
        catalogue = tables.catalogue if tables.in_graph else 0
        held = tables.catalogue + tables.remembered
        hidden = form.model_copy(update={"items": 0})

        def graph(precision: str) -> int:
            shape = form.architecture
            model = _words(shape, precision) + encoder_bytes(form, precision) + head_bytes(hidden, precision)
            return fixed + model + (held if tables.in_graph else 0)

        def whole(precision: str) -> int:
            product = head_bytes(form, precision) - head_bytes(hidden, precision)
            return graph(precision) + product + (0 if tables.in_graph else held)

        return cls(
            items=catalogue,
            least=vocabulary + _words(form.architecture) + head_bytes(hidden) + catalogue,
            most=graph(FLOAT),
            version=whole(FLOAT),
            served=whole(precision),
        )

    def items_that_fit(self, items: int) -> int | None:
        """Of a catalogue of `items`, how many like them a graph can have; None where it does not grow with them."""
        room = MOST_BYTES - (self.least - self.items)
        return max(0, int(room / self.items * items)) if self.items else None


def head_bytes(form: ModelForm, precision: str = FLOAT) -> int:
    """hidden [2H, H] and items [C, 2H] with their biases; rounded, each output has its range as well.

    Of titles: projection [D, H], vectors [C, D] and the bias, float in every precision.
    """
    width, items = form.architecture.hidden_size, form.items or 0
    if form.vector_size is not None:
        return INT * (form.vector_size * (width + items) + items)
    outputs = 2 * width + items
    ranges = INT * outputs if precision == "int8" else 0
    return (2 * width * width + 2 * width * items) * _bytes_of(precision) + INT * outputs + ranges


def encoder_bytes(form: ModelForm, precision: str = FLOAT) -> int:
    """All but the word embeddings, which `_words` counts: positions, and each layer's products, biases and norms."""
    shape = form.architecture
    width, inner = shape.hidden_size, shape.intermediate_size
    products = 4 * width * width + 2 * width * inner
    beside = 9 * width + inner  # biases, and two norms
    layer = products * _bytes_of(precision) + INT * beside * (2 if precision == "int8" else 1) + _PER_LAYER
    return INT * width * (form.max_length + 4) + shape.num_hidden_layers * layer


def vocabulary_bytes(tokenizer: Path) -> int:
    """Every token and its number, as a table that is looked up."""
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    return texts_bytes(vocabulary) + INT * len(vocabulary)


def texts_bytes(texts: Iterable[str]) -> int:
    """Texts as a protobuf message has them: UTF-8, behind a tag and their length."""
    sizes = [len(text.encode()) for text in texts]
    return sum(sizes) + sum(2 if size < 128 else 3 if size < 16_384 else 4 for size in sizes)


def _bytes_of(precision: str) -> int:
    return _NUMBER.get(precision, _NUMBER[FLOAT])  # of one that is not known: no more than that


def _words(shape: Architecture, precision: str = FLOAT) -> int:
    ranges = INT * shape.vocab_size if precision == "int8" else 0
    return shape.vocab_size * shape.hidden_size * _bytes_of(precision) + ranges
