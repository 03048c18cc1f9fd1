#!/usr/bin/env bash
# Put the FAB auth manager, and what it needs for OpenID Connect, into a folder for PYTHONPATH, and print that folder:
#
#   PYTHONPATH=$(scripts/fab.sh) …          the environment itself stays as it is (docs/how-to/log-in.md)
#
# Installed once for each lock; every file has to have a digest of locks/fab.lock. Settings:
#   RESHELVE_WHEELS   where the folder is kept (default: .wheels)
#   RESHELVE_PYTHON   the environment's Python (default: .venv/bin/python)
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=${RESHELVE_WHEELS:-.wheels}
folder="$wheels/fab-$(sha256sum locks/fab.lock | cut -c1-16)"
if [ ! -d "$folder" ]; then
  mkdir -p "$wheels"
  made=$(mktemp -d "$folder.XXXXXX")
  trap 'rm -rf "$made"' EXIT
  "${RESHELVE_PYTHON:-.venv/bin/python}" -m pip install --quiet --no-compile --no-deps --require-hashes --only-binary :all: --target "$made" -r locks/fab.lock >&2
  mv -T "$made" "$folder" 2>/dev/null || [ -d "$folder" ] # another one was quicker
fi
realpath "$folder"
