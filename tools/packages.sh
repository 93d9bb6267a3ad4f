#!/usr/bin/env bash
# usage: tools/packages.sh PROFILE
#
# Sees to it that the Debian packages which bindep.txt lists for PROFILE (demo or test) are
# installed.  Installs what is missing when it runs as root; otherwise it says what is missing
# and ends with status 1.  Services that come along are not started.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:?usage: tools/packages.sh PROFILE}

mapfile -t wanted < <(
    sed -n 's/#.*//; s/^\([a-z0-9.+-]\+\) *\[platform:dpkg \(.*\)\] *$/\1 \2/p' bindep.txt |
    awk -v profile="$profile" '{ for (i = 2; i <= NF; i++) if ($i == profile) print $1 }')
if [ ${#wanted[@]} -eq 0 ]; then
    echo "bindep.txt lists nothing for '$profile'." >&2
    exit 1
fi

if ! command -v dpkg-query >/dev/null; then
    echo "This is not a Debian system: please see to it yourself that what these packages"
    echo "hold is installed: ${wanted[*]}"
    exit 0
fi

is_there() {
    # A Python that was not installed by dpkg brings its own venv.
    if [ "$1" = python3-venv ] && [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null && return
    fi
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ]
}

missing=()
for package in "${wanted[@]}"; do
    is_there "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "These Debian packages are missing. Please install them, then try again:" >&2
    echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=
clean_up() {
    rm -f "$log"
    [ -z "$made_policy" ] || rm -f "$policy"
}
trap clean_up EXIT
if [ ! -e $policy ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod +x $policy
fi

run_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" \
        </dev/null >>"$log" 2>&1
}
install() {
    run_apt install -y --no-install-recommends "${missing[@]}"
}

echo "Installing Debian packages: ${missing[*]}"
# The lists may be absent or name versions that are gone: they are fetched only when needed.
if ! install && ! { run_apt update && install; }; then
    echo "apt-get could not install them. Its last lines:" >&2
    tail -n 15 "$log" >&2
    exit 1
fi
