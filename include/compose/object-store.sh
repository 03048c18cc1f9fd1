#!/bin/sh
# The object store of docker-compose.yaml: SeaweedFS with one identity for each kind of process, from the environment,
# and its inner doors (master, volumes, filer, admin) closed.
#   STORE_DIRECTORY  where the data lies (default /data)
#   STORE_BIND       the address that S3 listens on (default 0.0.0.0: inside its container)
#   STORE_PORT       the S3 port (default 8333)
set -eu
directory=${STORE_DIRECTORY:-/data}
umask 077
python -m reshelve.platform.identities "$directory"
cd "$directory" # weed looks for security.toml there
exec weed -logtostderr=true mini -dir="$directory" -ip=127.0.0.1 -ip.bind="${STORE_BIND:-0.0.0.0}" \
  -s3.port="${STORE_PORT:-8333}" -s3.config="$directory/s3.json" -s3.port.iceberg=0 -s3.port.lance=0 \
  -webdav=false -admin.ui=false -s3.iam=false -master.telemetry=false
