"""What Airflow must know by name in every process: the timetable that its database remembers, and links of tasks."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from reshelve_airflow.reports import ReportLink
from reshelve_airflow.timetable import NightTimetable


class ReshelvePlugin(AirflowPlugin):
    """Registers NightTimetable and ReportLink."""

    name = "reshelve"
    timetables = [NightTimetable]  # noqa: RUF012 - Airflow's own attribute
    operator_extra_links = [ReportLink()]  # noqa: RUF012 - Airflow's own attribute
