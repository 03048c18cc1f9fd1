"""The reviewed list of base models: parsed with file and line, looked up by name, and held against what is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reshelve.config.bases import listed, read_bases, source_of
from reshelve.errors import ConfigurationError, MisfitError
from reshelve.files import digest_of_file
from reshelve.model.base import resolve_base
from reshelve.model.kept_base import keep_base, recorded_base
from reshelve.pipeline.references import load_ranker
from reshelve.settings import settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RANKER = """\
name: shelf
title: A shelf
kind: next_item
data: {source: retail}
gates: {metric: recall@20}
model: {base: %s}
"""


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write the list: one entry `own`, with these lines."""
    path = tmp_path / "bases.yaml"
    monkeypatch.setenv("RESHELVE_BASES", str(path))
    settings.cache_clear()

    def write(*lines: str, whole: str = "") -> Path:
        path.write_text(whole or "\n".join(["bases:", "  own:", *(f"    {line}" for line in lines), ""]))
        return path

    yield write
    settings.cache_clear()


def test_the_projects_own_list_is_right_and_its_models_are_what_it_says() -> None:
    for name, entry in read_bases().items():
        assert source_of(name) == entry.source
        assert resolve_base(entry.source, None).files == entry.files


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        pytest.param(["source: someone/a-model", "why: it is well known"], 3, "NAME@COMMIT", id="no commit"),
        pytest.param(["source: someone/a-model@main", "why: it is well known"], 3, "all 40 digits", id="a branch"),
        pytest.param(["source: http://example.com", "why: it is well known"], 3, "expected package:", id="no model"),
        pytest.param(["source: package:x", "why: ''"], 4, "at least 10 characters", id="no reason"),
        pytest.param(["source: package:x"], 2, "bases.own.why: Field required", id="no reason at all"),
        pytest.param(["source: package:x", "why: it is well known", "digest: x"], 5, "Extra inputs", id="an unknown key"),
        pytest.param(
            ["source: package:x", "why: it is well known", "files: {config.json: abc}"], 5, "pattern", id="no digest"
        ),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_its_line(
    bases: Callable[..., Path], lines: list[str], line: int, words: str
) -> None:
    path = bases(*lines)
    with pytest.raises(ConfigurationError) as refused:
        read_bases()
    assert refused.value.headline.startswith(f"{path}:{line}: bases.own"), refused.value.headline
    assert words in refused.value.headline


@pytest.mark.parametrize("name", ["package:x", "Own", "a/b", "../own", "own@main", "s3://own"])
def test_no_entry_has_the_name_of_something_else(bases: Callable[..., Path], name: str) -> None:
    path = bases(whole=f"bases:\n  '{name}': {{source: 'package:x', why: it is well known}}\n")
    with pytest.raises(ConfigurationError, match=rf"{path}:2: .*is no base model's name"):
        read_bases()


def test_a_ranker_file_names_an_entry_or_its_own(bases: Callable[..., Path], tmp_path: Path) -> None:
    bases(f"source: someone/a-model@{COMMIT}", "why: it is well known")
    own = "s3://models/of-this-ranker/"
    for said, meant in (("own", f"someone/a-model@{COMMIT}"), (own, own), ("gpt2", "gpt2")):
        (tmp_path / "shelf.yaml").write_text(RANKER % said)
        assert load_ranker("shelf", directory=tmp_path).model.base == meant
    assert load_ranker("shelf", {"model.base": "own"}, tmp_path).model.base == f"someone/a-model@{COMMIT}"
    with pytest.raises(ConfigurationError, match=r"'gpt2' is not in the list of base models") as refused:
        listed("gpt2")
    assert refused.value.detail.endswith("bases.yaml: own")


def test_a_wrong_list_costs_who_needs_it(bases: Callable[..., Path], tmp_path: Path) -> None:
    path = bases(whole="bases:\n  own: {source: 7}\n")
    (tmp_path / "shelf.yaml").write_text(RANKER % "s3://models/of-this-ranker/")
    load_ranker("shelf", directory=tmp_path)
    (tmp_path / "shelf.yaml").write_text(RANKER % "own")
    with pytest.raises(ConfigurationError, match=rf"{path}:2: "):
        load_ranker("shelf", directory=tmp_path)
    path.unlink()
    with pytest.raises(ConfigurationError, match=rf"{path}:1: cannot be read"):
        load_ranker("shelf", directory=tmp_path)


def test_what_is_fetched_is_what_was_reviewed(
    bases: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    """Digests, and a revision, hold whoever names the source: also what lies there by now and did not then."""
    home = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    files = {path.name: digest_of_file(path) for path in home.iterdir()}
    why, source = "why: for these tests alone", f"source: {home}"
    bases(source, why, f"files: {files}")
    base = resolve_base(str(home), None)
    assert base.files == files
    bases(source, why, f"revision: '{base.revision}'")
    resolve_base(str(home), None)
    keep_base(str(home), base)

    more = home / "more.safetensors"
    for change in (lambda: more.write_bytes(b"x"), lambda: (home / "config.json").write_text("{}")):
        change()
        for said in (f"files: {files}", f"revision: '{base.revision}'"):
            path = bases(source, why, said)
            with pytest.raises(MisfitError, match=rf"model\.base: {home}: .*\(own in {path}\)"):
                resolve_base(str(home), None)
        more.unlink(missing_ok=True)
    assert recorded_base(str(home), base.record(), None).files == files, "a night that began with it goes on"
