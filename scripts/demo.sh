#!/usr/bin/env bash
# Sweeps cluster granularity and temperature on the embedded digits; arguments go to `clray sweep`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/environment.sh"
prepare_environment ""
cd "$root"
exec "$root/.venv/bin/clray" sweep tune_configs/quickstart.yaml "$@"
