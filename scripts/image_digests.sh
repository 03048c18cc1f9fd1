#!/usr/bin/env bash
# Print, for .env, every image of docker-compose.yaml that is not built here with the digest that it has now:
#
#   scripts/image_digests.sh >> .env
#
# Docker asks the registry. Run it again to move to a newer image of the same tag, and read the difference.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v docker >/dev/null || { echo "image_digests: docker is missing" >&2; exit 78; }

grep -oE '\$\{[A-Z_]+_IMAGE:-[a-z0-9./-]+:[A-Za-z0-9._-]+\}' docker-compose.yaml | sort -u | while IFS= read -r found; do
  found=${found#\$\{} found=${found%\}}
  name=${found%%:-*} image=${found#*:-}
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
  echo "$name=$image@$digest"
done
