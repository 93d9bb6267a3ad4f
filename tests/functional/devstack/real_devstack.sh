#!/bin/bash
#
# Sources DevStack's own functions, as stack.sh does; part of phases.sh.

TOP_DIR=$ROOT/devstack
if [[ ! -d $TOP_DIR ]]; then
    cp -r $DEVSTACK_DIR $TOP_DIR
    # It would set up Tempest, for which services have to run.
    rm -r $TOP_DIR/extras.d
    # What configure_cinder and configure_glance copy from the services' source.
    mkdir -p $DEST/{cinder/etc/cinder/rootwrap.d,glance/etc/metadefs}
    touch $DEST/cinder/etc/cinder/{api-paste.ini,rootwrap.conf} \
        $DEST/glance/etc/{glance-api-paste.ini,schema-image.json,metadefs/none.json}
    cat > $TOP_DIR/localrc <<EOF
DEST=$DEST
DATA_DIR=$DATA_DIR
HOST_IP=$HOST_IP
SERVICE_TIMEOUT=$SERVICE_TIMEOUT
ENABLED_SERVICES=$ENABLED_SERVICES,key,mysql,rabbit
OFFLINE=True
GLOBAL_VENV=True
DEVSTACK_VENV=$DEVSTACK_VENV
DATABASE_PASSWORD=secret
RABBIT_PASSWORD=secret
SERVICE_PASSWORD=secret
ADMIN_PASSWORD=secret
EOF
fi
FILES=$TOP_DIR/files
_SYSTEMCTL=$SYSTEMCTL _SYSTEMD_DIR=$SYSTEMD_DIR _STACK_USER=$STACK_USER
source $TOP_DIR/functions
source $TOP_DIR/stackrc
SYSTEMCTL=$_SYSTEMCTL SYSTEMD_DIR=$_SYSTEMD_DIR STACK_USER=$_STACK_USER
GetDistro
source $TOP_DIR/lib/database
source $TOP_DIR/lib/rpc_backend
DEVSTACK_PLUGINS=sheepstack
GITDIR[sheepstack]=$SHEEPSTACK_DIR

function source_projects {
    local lib
    for lib in apache tls infra libraries lvm keystone glance cinder swift tempest; do
        source $TOP_DIR/lib/$lib
    done
    initialize_database_backends
    # These are fixed, and not meant to be elsewhere.
    CINDER_CONF_DIR=$ROOT/etc/cinder
    CINDER_CONF=$CINDER_CONF_DIR/cinder.conf
    CINDER_API_PASTE_INI=$CINDER_CONF_DIR/api-paste.ini
    CINDER_UWSGI_CONF=$CINDER_CONF_DIR/cinder-api-uwsgi.ini
    TEMPEST_CONFIG=$ROOT/etc/tempest.conf
    stub_what_changes_the_host
}

# What writes where Apache and sudo of the host would find it.
function stub_what_changes_the_host {
    function write_uwsgi_config {
        echo "stub: write_uwsgi_config $*"
    }

    function write_local_uwsgi_http_config {
        echo "stub: write_local_uwsgi_http_config $*"
        touch $1
    }

    function configure_rootwrap {
        echo "stub: configure_rootwrap $*"
    }
}
