#!/bin/bash
#
# plugin.sh - brings up sheep, and points Cinder, Glance and the object API at them

# Save trace setting
_XTRACE_SHEEPSTACK_PLUGIN=$(set +o | grep xtrace)
set +o xtrace

source $SHEEPSTACK_DIR/devstack/lib/sheepstack

if is_service_enabled sheepstack; then
    if [[ "$1" == "stack" && "$2" == "pre-install" ]]; then
        echo_summary "Preparing sheepstack"
        preinstall_sheepstack
    elif [[ "$1" == "stack" && "$2" == "install" ]]; then
        echo_summary "Installing and starting sheepstack"
        install_sheepstack
        configure_sheepstack
        start_sheepstack
        init_sheepstack
    elif [[ "$1" == "stack" && "$2" == "post-config" ]]; then
        echo_summary "Pointing services at sheepstack"
        configure_services_sheepstack
    elif [[ "$1" == "stack" && "$2" == "extra" ]]; then
        echo_summary "Checking sheepstack"
        check_sheepstack
    elif [[ "$1" == "stack" && "$2" == "test-config" ]]; then
        echo_summary "Configuring Tempest for sheepstack"
        configure_tempest_sheepstack
    elif [[ "$1" == "unstack" ]]; then
        stop_sheepstack
    elif [[ "$1" == "clean" ]]; then
        cleanup_sheepstack
    fi
fi

# Restore xtrace
$_XTRACE_SHEEPSTACK_PLUGIN
