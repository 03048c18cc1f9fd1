#!/usr/bin/env bash
# Print the secrets that docker-compose.yaml asks for:   scripts/compose_env.sh > .env
set -euo pipefail

word() { head -c 64 /dev/urandom | base64 | tr -dc 'a-zA-Z0-9' | cut -c1-"$1"; }

cat <<ENV
AIRFLOW_PASSWORD=$(word 16)
AIRFLOW_FERNET_KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
AIRFLOW_JWT_SECRET=$(word 40)$(word 40)
AIRFLOW_API_SECRET_KEY=$(word 40)
POSTGRES_PASSWORD=$(word 24)
GRAFANA_PASSWORD=$(word 16)
$(for identity in ADMIN NIGHTS PAGES AGENT GATEWAY CALLERS METRICS; do
  echo "RESHELVE_S3_${identity}_KEY=$(word 20)"
  echo "RESHELVE_S3_${identity}_SECRET=$(word 40)"
done)
RESHELVE_START_DATE=$(date -u +%F)
ENV
