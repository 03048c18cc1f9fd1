"""The folders are an Astro project's, and `astro dev start` cannot run this one: its CLI has to say so at once, and the README why."""

from __future__ import annotations

import re
import tomllib

from reshelve.settings import PROJECT

README = (PROJECT / "README.md").read_text()


def test_astros_cli_does_not_take_this_for_its_own_project() -> None:
    """It asks for .astro/config.yaml, or (since 2.0) for [tool.astro]; with either it would build the Dockerfile and fail later."""
    assert not (PROJECT / ".astro").exists()
    assert "astro" not in tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]


def test_the_readme_says_what_to_type_instead() -> None:
    (said,) = re.findall(r"<details><summary>[^\n]*astro dev start.*?</details>", README, re.S)
    assert "make run" in said


def test_the_reasons_still_hold() -> None:
    """Once one of them is gone, the README has to be written anew."""
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert "USER reshelve" in dockerfile
    assert "USER astro" not in dockerfile
    # The runtime image's own condition for refusing a requirements.txt.
    requirements = (PROJECT / "requirements.txt").read_text()
    assert re.search(r"^apache-airflow\s*[=~>]{1,2}", requirements, re.M)


def test_the_readme_has_what_pip_leaves_out() -> None:
    requirements = (PROJECT / "requirements.txt").read_text()
    assert re.search(r"^-c constraints\.txt$", requirements, re.M)
    assert not re.search(r"^horovod", requirements, re.M)
    (said,) = re.findall(r"<details><summary>If you install with pip by hand.*?</details>", README, re.S)
    assert "scripts/build_horovod.sh" in said
    assert "pip install --no-deps -e ." in said
