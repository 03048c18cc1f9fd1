#!/bin/sh
# Once per start: the database's tables, Airflow's pools, the bucket, the keys that sign versions.
set -eu
airflow db migrate
python -m reshelve_airflow.settings_file /opt/reshelve/airflow_settings.yaml
python -c 'from reshelve.store.objects import object_store; object_store().create_bucket()'
reshelve keys make --if-missing
