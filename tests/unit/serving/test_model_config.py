"""models.config: written whole, read back, and in the words of TensorFlow Serving."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.errors import DataError
from reshelve.protocol.model_config import ModelEntry, parse, read_config, write_config


def test_the_text_is_what_tensorflow_serving_reads(tmp_path: Path) -> None:
    write_config(
        tmp_path,
        [ModelEntry("recommend", Path("/models/recommend"), frozenset({2, 1}), {"stable": 1, "canary": 2})],
    )
    text = " ".join((tmp_path / "models.config").read_text().split())
    assert text == (
        'model_config_list { config { name: "recommend" base_path: "/models/recommend" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 versions: 2 } } "
        'version_labels { key: "canary" value: 2 } version_labels { key: "stable" value: 1 } } }'
    )
    assert [path.name for path in tmp_path.iterdir()] == ["models.config"]


def test_no_models_is_a_list_too(tmp_path: Path) -> None:
    assert read_config(tmp_path) == {}
    write_config(tmp_path, [])
    assert (tmp_path / "models.config").read_text().split() == ["model_config_list", "{", "}"]
    assert read_config(tmp_path) == {}


def test_a_label_must_point_at_a_listed_version() -> None:
    with pytest.raises(ValueError, match="not listed"):
        ModelEntry("recommend", Path("/m"), frozenset({1}), {"stable": 2})


@pytest.mark.parametrize(
    "text", ["model_config_list {", "nonsense", "model_config_list { config { name: 1 } }"]
)
def test_a_damaged_file_is_named(text: str) -> None:
    with pytest.raises(DataError, match=r"models\.config is no model server configuration"):
        parse(text)


@given(st.frozensets(st.integers(1, 2**62), min_size=1, max_size=4), st.data())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, versions: frozenset[int], data: st.DataObject
) -> None:
    labels = data.draw(
        st.dictionaries(st.sampled_from(["stable", "canary"]), st.sampled_from(sorted(versions)))
    )
    made = ModelEntry("recommend", Path("/models/recommend"), versions, labels)
    directory = tmp_path_factory.mktemp("config")
    write_config(directory, [made])
    assert read_config(directory) == {"recommend": made}
    kept = frozenset(list(versions)[:1])
    limited = made.limited_to(kept)
    assert limited is not None and limited.versions == kept and set(limited.labels.values()) <= kept
    assert made.limited_to(frozenset()) is None
