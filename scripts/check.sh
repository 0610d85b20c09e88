#!/usr/bin/env bash
# What continuous integration checks before the tests: style, the import contract, types. Every check runs; the status
# is 1 where any fails.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/environment.sh"
prepare_environment test
cd "$root"
failed=0
for check in "ruff check ." "ruff format --check ." lint-imports mypy; do
    echo "== $check"
    # shellcheck disable=SC2086  # a command and its options
    "$root/.venv/bin/"$check || failed=1
done
exit $failed
