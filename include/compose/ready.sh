#!/usr/bin/env bash
# Whether this model server answers what the pointers want: the health check of its container, a readiness probe.
# An open port is not enough: TensorFlow Serving listens before the labels point anywhere. The image has neither curl nor
# Python; bash itself opens the connections.
#   MODELS  the directory shared with the agent, which writes labels.wanted there (default /models)
#   REST    where the server's REST API listens (default 127.0.0.1:8501)
set -eu
models=${MODELS:-/models}
rest=${REST:-127.0.0.1:8501}
exec 2>&1
[ -f "$models/labels.wanted" ] || { echo "the agent has not started yet: no $models/labels.wanted"; exit 1; }

answers() { # the metadata of a label is that of its version; a label that points nowhere has none
  local line
  exec 3<>"/dev/tcp/${rest%:*}/${rest##*:}" || return 1
  printf 'GET /v1/models/%s/labels/%s/metadata HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" "$2" "$rest" >&3
  IFS= read -r -t 5 line <&3 || line=
  exec 3>&-
  case $line in *" 200 "*) return 0 ;; esac
  echo "$1 $2: ${line:-no answer}"
  return 1
}

exec 3<>"/dev/tcp/${rest%:*}/${rest##*:}" || exit 1
exec 3>&-
while read -r ranker label; do
  answers "$ranker" "$label" || exit 1
done <"$models/labels.wanted"
