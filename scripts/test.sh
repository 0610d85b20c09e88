#!/usr/bin/env bash
# Runs the tests; arguments go to pytest, for example -m "not slow" or -k kmeans.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/environment.sh"
prepare_environment test
cd "$root"
exec "$root/.venv/bin/python" -m pytest "$@"
