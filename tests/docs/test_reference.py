"""Documentation that cannot drift from the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from reshelve.config.ranker import Ranker, ranker_names
from reshelve.settings import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
EVERYTHING = "\n".join(page.read_text() for page in PAGES)
CLI = (PROJECT / "docs" / "reference" / "cli.md").read_text()


@pytest.mark.slow
def test_the_reference_pages_are_those_of_this_code() -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "scripts" / "reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_ranker_key_is_explained() -> None:
    def keys(form: type[BaseModel], prefix: str = "") -> list[str]:
        found = []
        for name, field in form.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += keys(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                found.append(f"{prefix}{name}")
        return found

    assert keys(Ranker) == []


@pytest.mark.slow
def test_every_make_target_is_documented() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.M)
    assert "run" in targets
    listed = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for target in targets:
        assert f"make {target} " in listed


def test_every_documented_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", EVERYTHING)) <= targets


def test_every_documented_verb_exists() -> None:
    verbs = set(re.findall(r"^## `reshelve ([a-z -]+)`", CLI, re.M))
    groups = {verb.split()[0] for verb in verbs}
    for words in re.findall(r"(?:`|bin/)reshelve ([a-z-]+(?: [a-z-]+)?)", EVERYTHING):
        assert words in verbs or words.split()[0] in verbs | groups, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_the_shipped_rankers_are_in_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert any(f"--ranker {name}" in readme for name in ranker_names())
