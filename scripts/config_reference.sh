#!/usr/bin/env bash
# Write docs/config.md and tune_configs/schema.json anew from the sections of the config.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=${PYTHON:-$root/.venv/bin/python}
"$python" -m clray config --markdown > docs/config.md
"$python" -m clray config --schema > tune_configs/schema.json
