"""One file that is wrong costs its own DAGs and tasks, and nobody else's.

The forms refuse what they can. What they accept and Airflow does not is found while the DAGs of that one file are made:
they are left out, and `dags/ranker_files.py` shows why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from airflow.sdk import DAG

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError
from reshelve.settings import settings

T = TypeVar("T")


def dags_of(
    rankers: Iterable[Ranker], build: Callable[[Ranker], DAG]
) -> tuple[dict[str, DAG], list[ConfigurationError]]:
    """The DAG of each ranker, for a DAG file's globals, and why others have none.

    `build` makes a DAG with `auto_register=False`: Airflow would else find one that broke off half-way. No key is a
    name that Python code could have: a ranker's may be that of a function (`retrain_params`).
    """
    made, problems = {}, []
    for ranker in rankers:
        try:
            dag = build(ranker)
            dag.validate()
        except Exception as error:  # noqa: BLE001  whatever it is, the others have to have their DAGs
            problems.append(_problem(ranker, error))
        else:
            made[f"dag {dag.dag_id}"] = dag
    return made, problems


def add_tasks(
    dag: DAG, rankers: Iterable[Ranker], build: Callable[[Ranker], None]
) -> list[ConfigurationError]:
    """Give a DAG the tasks of each ranker; why some have none. They are made in a DAG of their own first."""
    problems = []
    for ranker in rankers:
        try:
            with DAG(
                f"{dag.dag_id}_{ranker.name}", default_args=dag.default_args, auto_register=False
            ) as trial:
                build(ranker)
            trial.validate()
            with dag:
                build(ranker)
        except Exception as error:  # noqa: BLE001  as above
            problems.append(_problem(ranker, error))
    return problems


def _problem(ranker: Ranker, error: Exception) -> ConfigurationError:
    path = settings().rankers_dir / f"{ranker.name}.yaml"
    said = f"{type(error).__name__}: {error}"
    return ConfigurationError(f"{path}:1: Airflow cannot make a DAG from it", said)
