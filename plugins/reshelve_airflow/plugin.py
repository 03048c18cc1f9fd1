"""What Airflow must know by name in every process: the timetable that its database remembers."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from reshelve_airflow.timetable import NightTimetable


class ReshelvePlugin(AirflowPlugin):
    """Registers NightTimetable."""

    name = "reshelve"
    timetables: ClassVar[list[Any]] = [NightTimetable]
