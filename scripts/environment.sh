# Sourced by demo.sh and test.sh: makes .venv beside the code, once, and says what is missing.
# Needs a Python 3.11, 3.12 or 3.13 with its venv module, about 9 GB of disk and a package index; nothing else.

fail() {
    echo "error: $1" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.13; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed; found $(python3 --version 2>&1 || true). Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

# prepare_environment EXTRA: installs clray (with the extra, if any) unless that has been done for these pins.
prepare_environment() {
    local extra=$1 pins stamp python free_kb
    pins=$(cat "$root/pyproject.toml" "$root/scripts/constraints.txt" | cksum | tr -d ' ')
    stamp="$root/.venv/.clray-$pins"
    if [ -e "$stamp-test" ] || { [ -z "$extra" ] && [ -e "$stamp" ]; }; then
        return
    fi
    if [ ! -x "$root/.venv/bin/python" ]; then
        python=$(find_python)
        "$python" -c 'import venv, ensurepip' 2>/dev/null ||
            fail "$python has no venv module (on Debian and Ubuntu: apt install python3-venv)"
        free_kb=$(df -Pk "$root" | awk 'NR == 2 { print $4 }')
        [ "$free_kb" -ge 9000000 ] ||
            fail "about 9 GB of disk are needed in $root; $((free_kb / 1000000)) GB are free"
        echo "Making $root/.venv with $("$python" --version)"
        "$python" -m venv "$root/.venv" || fail "cannot make $root/.venv"
    fi
    echo "Installing clray and what it needs (a few minutes, about 8 GB)"
    "$root/.venv/bin/python" -m pip install --disable-pip-version-check --quiet \
        -c "$root/scripts/constraints.txt" -e "$root${extra:+[$extra]}" ||
        fail "pip could not install clray. Is there a network, and a package index that pip is configured for? What was installed is kept; run the command again"
    touch "$stamp${extra:+-$extra}"
}
