"""Tables as variables: whatever bytes their keys have, as TensorFlow loads them and as a model server does, outside the graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from grpc import StatusCode

from reshelve.errors import DataError
from reshelve.export.operations import check_operations
from reshelve.features.graph_tables import Places, TextTable, numbers
from reshelve.modelserver.servables import Servable
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError

ODD = [
    b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0b", b"a\r", b"a\n", b"\r\n", b"\n", b"a\tb", b" a", b"a ", b"\xff\xfe", b"\x80",
    b"caf\xc3\xa9", b"cafe\xcc\x81", b"x" * 22, b"x" * 23, b"x" * 24, b"x" * 70_000, b"-1", b"\xef\xbb\xbfa",
]  # fmt: skip
UNKNOWN = [b"b", b"a\0\0", b"\xff", b"x" * 25, b"A"]
Ask = Callable[[list[bytes]], dict[str, Any]]


class Tables(tf.Module):
    """Where a text is, and what stands there."""

    def __init__(self, keys: list[bytes], unknown: int = -1) -> None:
        super().__init__()
        self.texts = TextTable(keys)
        self.places = Places(self.texts, unknown)
        self.values = numbers(np.arange(len(keys) + 1, dtype=np.float32) / 2)

        def asked(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            place = self.places.lookup(texts)
            known = tf.where((place >= 0) & (place < len(keys)))[:, 0]
            return {
                "place": place,
                "text": self.texts.gather(tf.gather(place, known)),
                "value": tf.gather(self.values, tf.maximum(place, 0)),
            }

        spec = tf.TensorSpec([None], tf.string, name="texts")
        self.asked = tf.function(asked, input_signature=[spec], autograph=False).get_concrete_function()

    def save(self, directory: Path) -> None:
        tf.saved_model.save(self, str(directory), signatures={"serving_default": self.asked})


def by_tensorflow(directory: Path) -> Ask:
    loaded = tf.saved_model.load(str(directory))

    def ask(texts: list[bytes]) -> dict[str, Any]:
        found = loaded.signatures["serving_default"](texts=tf.constant(texts, tf.string))
        return {name: tensor.numpy() for name, tensor in found.items()}

    return ask


def by_a_server(directory: Path) -> Ask:
    servable = Servable.load(directory, ServerOptions())
    return lambda texts: servable.predict("serving_default", {"texts": np.array(texts, object)}).outputs


LOADERS = pytest.mark.parametrize("load", [by_tensorflow, by_a_server])


@LOADERS
def test_every_byte_string_is_found_at_its_place_and_no_other(
    tmp_path: Path, load: Callable[[Path], Ask]
) -> None:
    Tables(ODD).save(tmp_path / "1")
    found = load(tmp_path / "1")([*ODD[::-1], *UNKNOWN])
    assert found["place"].tolist() == [*range(len(ODD))[::-1], *[-1] * len(UNKNOWN)]
    assert found["place"].dtype == np.int32
    assert list(found["text"]) == ODD[::-1]
    assert found["value"].tolist() == [*(np.arange(len(ODD))[::-1] / 2), *[0.0] * len(UNKNOWN)]


@LOADERS
def test_an_empty_table_knows_nothing(tmp_path: Path, load: Callable[[Path], Ask]) -> None:
    Tables([], unknown=0).save(tmp_path / "1")
    found = load(tmp_path / "1")([b"", b"a"])
    assert found["place"].tolist() == [0, 0] and found["value"].tolist() == [0.0, 0.0]
    assert load(tmp_path / "1")([])["place"].tolist() == []


def test_the_graph_does_not_grow_with_the_tables_and_only_computes(tmp_path: Path) -> None:
    for count in (10, 20_000):
        Tables([f"item {number}".encode() for number in range(count)]).save(tmp_path / str(count))
        operations = check_operations(tmp_path / str(count))
    assert {"VarHandleOp", "ResourceGather", "LookupTableImportV2"} <= set(operations)
    small, large = ((tmp_path / name / "saved_model.pb").stat().st_size for name in ("10", "20000"))
    assert abs(large - small) < 1_000
    assert sum(path.stat().st_size for path in (tmp_path / "20000").glob("variables/*")) > 20_000 * 10


def test_versions_in_one_server_keep_their_own(tmp_path: Path) -> None:
    """Their variables are called alike."""
    Tables([b"a", b"b"]).save(tmp_path / "1")
    Tables([b"b", b"c", b"a"]).save(tmp_path / "2")
    first, second = by_a_server(tmp_path / "1"), by_a_server(tmp_path / "2")
    assert first([b"a", b"b", b"c"])["place"].tolist() == [0, 1, -1]
    assert second([b"a", b"b", b"c"])["place"].tolist() == [2, 0, 1]


def without_variables(directory: Path) -> Path:
    shutil.rmtree(directory / "variables")
    return directory


def test_a_version_without_its_variables_does_not_load_where_it_has_a_table(tmp_path: Path) -> None:
    """The table is filled from them at the start: such a version never answers."""
    Tables(ODD).save(tmp_path / "1")
    with pytest.raises(ServingError, match="Could not find variable") as refused:
        Servable.load(without_variables(tmp_path / "1"), ServerOptions())
    assert refused.value.code is StatusCode.FAILED_PRECONDITION


def test_where_it_has_none_it_loads_and_answers_nothing(tmp_path: Path) -> None:
    Tables([]).save(tmp_path / "1")
    servable = Servable.load(without_variables(tmp_path / "1"), ServerOptions())
    with pytest.raises(ServingError, match=r"Could not find (variable|resource)"):
        servable.predict("serving_default", {"texts": np.array([b"a"], object)})


def test_texts_are_their_utf_8() -> None:
    assert TextTable(["café", "日本"]).values.numpy().tolist() == ["café".encode(), "日本".encode()]
    assert len(Places(["a", "b"])) == 2


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match="a key twice"):
        Places(["a", "b", "a"])


@pytest.mark.parametrize("shape", [(), (2, 3), (0, 4)])
def test_places_have_the_shape_of_what_is_asked(shape: tuple[int, ...]) -> None:
    for keys in (["a", "b"], []):
        assert Places(keys).lookup(tf.fill(shape, "b")).shape == shape


def test_numbers_keep_their_type() -> None:
    for kind in (np.int8, np.int32, np.int64, np.float32, tf.bfloat16.as_numpy_dtype):
        variable = numbers(np.arange(6).reshape(2, 3).astype(kind))
        assert variable.dtype.as_numpy_dtype == kind and variable.shape == (2, 3) and not variable.trainable
