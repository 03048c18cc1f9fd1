"""What Airflow must know by name in every process: the timetable that its database remembers."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from reshelve_airflow.timetable import NightTimetable


class ReshelvePlugin(AirflowPlugin):
    """Registers NightTimetable."""

    name = "reshelve"
    timetables = [NightTimetable]  # noqa: RUF012 - Airflow's own attribute
