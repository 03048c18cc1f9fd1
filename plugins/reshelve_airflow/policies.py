"""What every DAG of this project has in common: tags, owner, retries, time-outs, where its schedule begins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from reshelve.config.bases import read_bases
from reshelve.config.named_files import misnamed, names
from reshelve.config.ranker import Ranker, ranker_names, read_ranker
from reshelve.errors import ConfigurationError
from reshelve.pipeline.references import load_ranker
from reshelve.settings import settings
from reshelve_airflow.notifiers import on_failure

if TYPE_CHECKING:
    from airflow.sdk import Param

START_DATE = os.environ.get("RESHELVE_START_DATE", "2011-01-01")
"""The first partition that the schedule handles (YYYY-MM-DD). Manual runs and backfills may handle any day."""


class Tag(StrEnum):
    """The tags of our DAGs."""

    RESHELVE = "reshelve"
    DATA = "data"
    TRAINING = "training"
    RELEASE = "release"
    UPKEEP = "upkeep"
    WATCH = "watch"


class Pool(StrEnum):
    """The pools of airflow_settings.yaml."""

    ACCELERATOR = "accelerator"
    HEAVY = "heavy"


def job_timeout() -> timedelta:
    """How long one stage may run."""
    return timedelta(minutes=settings().job_timeout_minutes)


def defaults(owner: str = "reshelve") -> dict[str, Any]:
    """Task defaults. A retry resumes, so two are cheap; who is to be told hears of a failure after the last one."""
    return {
        "owner": owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=20),
        "execution_timeout": job_timeout(),
        "on_failure_callback": on_failure(),
    }


def by_hand(description: str, doc: str | None, params: Mapping[str, Param]) -> dict[str, Any]:
    """The arguments of a DAG that only people and pages start, to act on what serves: never paused, and nobody's run waits.

    A run that waits for agents must not keep the next decision back. Two runs at once are told apart by the pointer, which
    moves for one of them.
    """
    return {
        "description": description,
        "doc_md": doc,
        "schedule": None,
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 16,
        "dagrun_timeout": timedelta(hours=1),
        "tags": [Tag.RESHELVE, Tag.RELEASE],
        "default_args": defaults(),
        "params": params,
    }


def rankers(*, references: bool = True) -> tuple[list[Ranker], list[ConfigurationError]]:
    """Every ranker file that is right, and what is wrong with the others; of those the rankers whose nights run, as they began.

    `references=False`: what the files refer to is not looked at.
    """
    directory = settings().rankers_dir
    good, wrong = [], misnamed(directory)
    for name in ranker_names():
        try:
            good.append(load_ranker(name) if references else read_ranker(name))
        except ConfigurationError as error:
            wrong.append(error)
            good += _under_way(name)
        except Exception as error:  # noqa: BLE001  a file that the form cannot even refuse may not take the others along
            said = f"{type(error).__name__}: {error}"
            wrong.append(ConfigurationError(f"{directory / name}.yaml:1: expected a ranker file", said))
    return good, wrong


def _under_way(name: str) -> list[Ranker]:
    """A night that runs ends as it began, also where its file is wrong by now. The next one does not begin."""
    from reshelve.pipeline.pinned_night import (
        under_way,  # only where a file is wrong: boto3 costs DAG files their second
    )

    ranker = under_way(name)
    return [ranker] if ranker else []


def sources() -> list[str]:
    """The names of all clickstream sources; whether a mapping file is right is seen by the tasks of that source."""
    return names(settings().clickstreams_dir)


def source_problems() -> list[ConfigurationError]:
    """Mapping and rule files that have no name to be known by, or say what cannot be, and a wrong list of base models.

    Their SQL is tried where it is run.
    """
    from reshelve.raw.sources import load_source
    from reshelve.validation.rules import read_rules  # one DAG file asks: the others need not wait for DuckDB

    found = []
    try:
        read_bases()
    except ConfigurationError as error:
        found.append(error)
    readers = {settings().clickstreams_dir: load_source, settings().expectations_dir: read_rules}
    for directory, read in readers.items():
        found += misnamed(directory)
        for name in names(directory):
            try:
                read(name)
            except ConfigurationError as error:
                found.append(error)
    return found
