#!/usr/bin/env bash
# Delete the local data of the platform: only a directory that `reshelve platform up` made.
set -euo pipefail
cd "$(dirname "$0")/.."

home=${RESHELVE_HOME:-.reshelve}
[ -e "$home" ] || { echo "reset: nothing to delete at $home"; exit 0; }
if [ ! -f "$home/platform.json" ] && [ ! -d "$home/work" ]; then
  echo "reset: $home was not made by this project (it has neither platform.json nor work/); nothing is deleted" >&2
  exit 78
fi
# Name by name: a person's own files in that directory stay.
for name in airflow env logs platform.json postgres seaweedfs serving work .platform.lock .night.lock .platform.json.partial; do
  rm -rf -- "${home:?}/$name"
done
rmdir -- "$home" 2>/dev/null || echo "reset: $home keeps what this project did not make: $(ls -A "$home" | tr '\n' ' ')"
echo "reset: done"
