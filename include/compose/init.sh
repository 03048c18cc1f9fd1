#!/bin/sh
# Once per start: the database's tables, Airflow's pools, the bucket (in a store that keeps its conditions), the keys that sign,
# and what an older store has from before there were such keys.
set -eu
airflow db migrate
python -m reshelve_airflow.settings_file /opt/reshelve/airflow_settings.yaml
reshelve check-store
python -m reshelve.platform.new_keys /keys
