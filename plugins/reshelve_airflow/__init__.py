"""The only code beside dags/ that imports Airflow: operators, the timetable of nights, params, policies."""
