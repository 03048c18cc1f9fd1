#!/bin/sh
# The object store of docker-compose.yaml: SeaweedFS with one identity from the environment.
#   STORE_DIRECTORY  where the data lies (default /data)
#   STORE_BIND       the address to listen on (default 0.0.0.0: inside its container)
#   STORE_PORT       the S3 port (default 8333)
set -eu
: "${AWS_ACCESS_KEY_ID:?set it in .env (scripts/compose_env.sh writes one)}"
: "${AWS_SECRET_ACCESS_KEY:?set it in .env (scripts/compose_env.sh writes one)}"
directory=${STORE_DIRECTORY:-/data}
umask 077
cat >"$directory/s3.json" <<JSON
{"identities": [{"name": "reshelve",
  "credentials": [{"accessKey": "$AWS_ACCESS_KEY_ID", "secretKey": "$AWS_SECRET_ACCESS_KEY"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
exec weed -logtostderr=true mini -dir="$directory" -ip=127.0.0.1 -ip.bind="${STORE_BIND:-0.0.0.0}" \
  -s3.port="${STORE_PORT:-8333}" -s3.config="$directory/s3.json" -s3.port.iceberg=0 \
  -webdav=false -admin.ui=false -s3.iam=false -master.telemetry=false
