#!/usr/bin/env bash
# usage: PYTHON=python3 tools/venv.sh [VENV [test|bench|openstack|tempest|swift]]
#
# Makes the virtual environment VENV (default .venv) and installs this project into it, as an
# editable install: what is changed in the tree takes effect at once.  With "test" also what
# the tests and the checks of the source need; with "bench" what make bench measures; with
# "openstack" the OpenStack services that tests/openstack starts; with "tempest" these and
# tempest; with "swift" Swift's middlewares and what its tests need.  Does nothing when all is
# there already.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
for=${2:-}
case $for in
    "") also=() ;;
    test) also=(-r test-requirements.txt) ;;
    bench) also=(-r benchmarks/requirements.txt) ;;
    openstack) also=(-r tests/openstack/requirements.txt -c tests/openstack/constraints.txt) ;;
    tempest) also=(-r tests/openstack/tempest-requirements.txt
                   -c tests/openstack/constraints.txt) ;;
    swift) also=(-r tests/swift/requirements.txt) ;;
    *) echo "There is no environment for '$for'." >&2; exit 1 ;;
esac
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "'$python' is not Python 3.10 or later. Name one: make PYTHON=/path/to/python3 ..." >&2
    exit 1
fi

# What the environment was made from: when any of it changes, it is brought up to date.
made_from() {
    pwd
    "$python" -c 'import sys; print(sys.version, sys.executable)'
    cat setup.cfg setup.py requirements.txt tools/venv.sh "$@"
}
sum=$(made_from | sha256sum)
also_files=$(printf '%s\n' "${also[@]}" | grep txt || true)
also_sum=$(made_from $also_files | sha256sum)
is_current() {
    [ -x "$venv/bin/dog" ] && [ "$(cat "$venv/made-from" 2>/dev/null)" = "$sum" ] || return
    [ -z "$for" ] || [ "$(cat "$venv/made-from-$for" 2>/dev/null)" = "$also_sum" ]
}
if is_current; then
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    local what=$1
    shift
    if ! "$@" </dev/null >"$log" 2>&1; then
        echo "Could not $what. The last lines of: $*" >&2
        tail -n 15 "$log" >&2
        exit 1
    fi
}

# The version comes from git.  A copy of the tree without its history, or whose history git
# refuses to read (it belongs to another user), is installed as the release that is to come.
if ! git rev-parse HEAD >/dev/null 2>&1; then
    PBR_VERSION=$(sed -n 's/^version *= *//p' setup.cfg)
    export PBR_VERSION
fi

echo "Installing sheepstack into $venv${for:+, with what is needed for: $for}"
base=$("$python" -c 'import sys; print(sys.base_prefix)')
if [ "$("$venv/bin/python" -c 'import sys; print(sys.base_prefix)' 2>/dev/null)" != "$base" ] ||
   [ "$(cat "$venv/made-in" 2>/dev/null)" != "$PWD" ]; then
    rm -rf "$venv"
    quietly "make a virtual environment (Debian's python3 needs the package python3-venv)" \
        "$python" -m venv "$venv"
    pwd > "$venv/made-in"
fi
quietly "install sheepstack and the Python packages it needs (is a package index reachable?)" \
    "$venv/bin/python" -m pip install --disable-pip-version-check --use-pep517 \
    "${also[@]}" --editable '.[fast]'
echo "$sum" > "$venv/made-from"
[ -z "$for" ] || echo "$also_sum" > "$venv/made-from-$for"
