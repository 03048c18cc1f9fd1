"""What forms refuse: schedules that no scheduler can follow, and YAML that is more than values."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reshelve.config.named_files import misnamed, names
from reshelve.config.yaml_models import load_yaml
from reshelve.errors import ConfigurationError
from reshelve.pipeline.references import load_ranker

RANKER = """\
name: shelf
title: A shelf
kind: next_item
schedule: {schedule}
data:
  source: retail
gates:
  metric: recall@20
"""


def scheduled(directory: Path, schedule: str) -> str:
    (directory / "shelf.yaml").write_text(RANKER.format(schedule=schedule))
    return load_ranker("shelf", directory=directory).schedule


@pytest.mark.parametrize(
    "cron",
    ["0 3 * * *", "*/30 1-5 * * mon-fri", "0 3 L * *", "0 0 29 2 *", "@daily", "0 3 * JAN 7", "0 0 31 2 1"],
)
def test_a_schedule_that_fires_is_taken(tmp_path: Path, cron: str) -> None:
    assert scheduled(tmp_path, f"'{cron}'") == cron


def test_spaces_between_fields_are_one(tmp_path: Path) -> None:
    assert scheduled(tmp_path, "'  0  3 * *   *'") == "0 3 * * *"


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 25 * * *", "out of range"),
        ("0 0 31 2 *", "no day of any year"),
        ("0 3 * * * *", "five fields"),
        ("R 3 * * *", "five fields"),
        ("@reboot", "five fields"),
        ("", "five fields"),
        ("0 3 * * mon#9", "cron expression"),
    ],
)
def test_a_schedule_that_never_fires_is_named_with_its_line(tmp_path: Path, cron: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"shelf\.yaml:4: schedule: ") as refused:
        scheduled(tmp_path, f"'{cron}'")
    assert words in str(refused.value)


@given(st.text(string.digits + "*/,-#?L HR@mondayjn\t", max_size=20))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_schedule_is_one_of_the_two(tmp_path: Path, cron: str) -> None:
    """Refused as a mistake in the file, or followed by the scheduler's own timetable."""
    try:
        taken = scheduled(tmp_path, repr(cron))
    except ConfigurationError:
        return
    from airflow.timetables.trigger import CronPartitionTimetable

    CronPartitionTimetable(taken, timezone="UTC", run_offset=-1).validate()


@given(st.binary(max_size=60) | st.text("[]{}&*!|>%@`'\"#,:-? \n\tab1.<=", max_size=60).map(str.encode))
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_is_a_document_or_an_error_with_a_line(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(body)
    try:
        load_yaml(path)
    except ConfigurationError as error:
        assert error.headline.startswith(f"{path}:") and error.headline.partition(".yaml:")[2][0].isdigit()


def test_a_file_that_is_called_otherwise_is_no_name_but_a_mistake(tmp_path: Path) -> None:
    for name in ("search", "Search", "my shop", ".#search", "_x", "1st"):
        (tmp_path / f"{name}.yaml").touch()
    (tmp_path / "folder.yaml").mkdir()
    assert names(tmp_path) == ["search"]
    said = "\n".join(error.headline for error in misnamed(tmp_path))
    assert said.count("expected") == 5 and ".#search" not in said and "folder.yaml:1: expected a file" in said
    assert names(tmp_path / "nowhere") == misnamed(tmp_path / "nowhere") == []
