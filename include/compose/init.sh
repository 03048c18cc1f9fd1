#!/bin/sh
# Once per start: the database's tables, Airflow's pools, the bucket (in a store that keeps its conditions), the keys that sign versions.
set -eu
airflow db migrate
python -m reshelve_airflow.settings_file /opt/reshelve/airflow_settings.yaml
reshelve check-store
reshelve keys make --if-missing
