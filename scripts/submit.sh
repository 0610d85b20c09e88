#!/usr/bin/env bash
# Submits a sweep to a Ray cluster and follows its output; the laptop may go away, the sweep stays.
#
#   RAY_API_SERVER_ADDRESS=http://head:8265 STORAGE=/mnt/runs scripts/submit.sh tune_configs/quickstart.yaml [sweep options]
#
# RAY_API_SERVER_ADDRESS  the cluster's job server; http://127.0.0.1:8265 by default, as a forwarded port
# RAY_AUTH_TOKEN          the cluster's token, where it has one; or RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token
# STORAGE                 a folder that all nodes share (--output of the sweep); by default ~/clray/outputs of the node
# MLFLOW_TRACKING_URI     an MLflow server; by default an SQLite store in STORAGE
# INSTALL=1               install clray's requirements on the nodes, where their image does not have them
# COMMAND                 sweep by default; train for a single run
# RAY                     the ray command, by default that of .venv, else of the path
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 1 ] || { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 2; }
config=$1
shift
[ -f "$config" ] || { echo "error: $config: no such config file" >&2; exit 2; }
relative=$(realpath --relative-to="$root" "$config")
case $relative in
    ..*) echo "error: $config lies outside $root, which is what is sent to the cluster; copy it to tune_configs/" >&2; exit 2 ;;
esac
ray=${RAY:-$root/.venv/bin/ray}
[ -x "$ray" ] || ray=ray
python=$(dirname "$(command -v "$ray")")/python
[ -x "$python" ] || python=python3
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
if [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ] || [ -e "$HOME/.ray/auth_token" ]; then
    export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
fi
# What the nodes need: the code, not the environment and the results beside it; and time to end cleanly when stopped.
runtime_env=$("$python" - "$root/pyproject.toml" "${INSTALL:-}" <<'PYTHON'
import json
import sys
import tomllib

env = {
    "excludes": [".venv", ".git", "outputs", "docs", "data"],
    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60", "PYTHONUNBUFFERED": "1"},
}
if sys.argv[2]:
    with open(sys.argv[1], "rb") as file:
        env["pip"] = tomllib.load(file)["project"]["dependencies"]
print(json.dumps(env))
PYTHON
)
options=()
[ -n "${STORAGE:-}" ] && options+=(--output "$STORAGE")
[ -n "${MLFLOW_TRACKING_URI:-}" ] && options+=(--tracking-uri "$MLFLOW_TRACKING_URI")
cd "$root"
exec "$ray" job submit --working-dir . --runtime-env-json "$runtime_env" ${JOB_ID:+--submission-id "$JOB_ID"} -- \
    python -m clray "${COMMAND:-sweep}" "$relative" "${options[@]}" "$@"
