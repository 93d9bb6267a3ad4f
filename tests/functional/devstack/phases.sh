#!/usr/bin/env bash
# usage: phases.sh STEP...
#
# Has the plugin go through steps as stack.sh, unstack.sh and clean.sh do, in the directory
# $ROOT.  A STEP is MODE, MODE:PHASE (see plugin.sh) or configure_NAME, a function of
# DevStack.  DevStack's functions are those of $DEVSTACK_DIR, or shims where that is not set.
set -o errexit
here=$(cd $(dirname $0) && pwd)

DEST=$ROOT/stack
DATA_DIR=$ROOT/data
export SYSTEMD_DIR=$ROOT/systemd
SYSTEMCTL=$here/systemctl
STACK_USER=$(id -un)
HOST_IP=127.0.0.1
SERVICE_TIMEOUT=60
ENABLED_SERVICES=g-api,c-api,c-vol,c-sch,c-bak,tempest
DISABLED_SERVICES=
CINDER_CONF_DIR=$ROOT/etc/cinder
GLANCE_CONF_DIR=$ROOT/etc/glance
SWIFT_CONF_DIR=$ROOT/etc/swift
TEMPEST_CONFIG=$ROOT/etc/tempest.conf
mkdir -p $DEST $DATA_DIR $SYSTEMD_DIR $CINDER_CONF_DIR $GLANCE_CONF_DIR $SWIFT_CONF_DIR

if [[ -n "${DEVSTACK_DIR:-}" ]]; then
    source $here/real_devstack.sh
else
    set -o nounset
    source $here/shims
fi

run_phase override_defaults
source_projects

# The host's packages and services are not ours, and we are who sudo would make us.
function restart_service {
    echo "stub: restart_service $*"
}

function install_package {
    echo "stub: install_package $*"
}

function setup_develop {
    echo "stub: setup_develop $*"
}

# What is left of it; it would also set up the host's rsync.
function configure_swift {
    echo "stub: configure_swift"
    iniset $SWIFT_CONF_DIR/proxy-server.conf app:proxy-server use egg:swift#proxy
}

function sudo {
    "$@"
}

run_phase source
for step in "$@"; do
    if [[ "$step" == configure_* ]]; then
        $step
    else
        run_phase ${step/:/ }
    fi
done
