#!/bin/sh
# TensorFlow Serving beside its agent: both see the same /models. The server ends where its configuration is not
# there yet, so it waits for the agent's first one.
#   MODELS            the directory both share (default /models)
#   GRPC_MAX_THREADS  calls at once; one more is refused (default 64)
set -eu
models=${MODELS:-/models}
until [ -s "$models/models.config" ]; do
  echo "waiting for the agent to write $models/models.config"
  sleep 1
done
# Labels: only the very first configuration after a start may point one at a version that still loads.
# Retries: few and quick, so that a bad version is reported in seconds, not in five minutes.
# Load threads: with none, one bad version would block the good ones.
# gRPC threads: 4 for each processor is the server's own; under load a rollback then does not get through.
# Monitoring: without this file there is no page for Prometheus.
exec tensorflow_model_server --port=8500 --rest_api_port=8501 \
  --model_config_file="$models/models.config" \
  --allow_version_labels_for_unavailable_models=true \
  --max_num_load_retries=1 --load_retry_interval_micros=500000 --num_load_threads=2 \
  --file_system_poll_wait_seconds=1 --enable_model_warmup=true \
  --grpc_max_threads="${GRPC_MAX_THREADS:-64}" --monitoring_config_file="$(dirname "$0")/monitoring.config"
