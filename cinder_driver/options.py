"""What an operator can set in the section of a backend."""

from oslo_config import cfg

OPTIONS = [
    cfg.ListOpt(
        "sheepdog_addresses", default=["127.0.0.1:7000"],
        help="Addresses of sheep, in order of preference: host:port, [IPv6 address]:port or, "
             "for a sheep on the same host, unix:/path/of/its/directory/sock.  The driver talks "
             "to the first one that answers, and goes on with the next one when that fails."),
    cfg.StrOpt(
        "sheepdog_auth_key_file",
        help="File with the secret that the sheep and their clients share, where they have one: "
             "the one that the sheep got as --auth-key-file."),
    cfg.FloatOpt(
        "sheepdog_timeout", default=30, min=1,
        help="Seconds that one request to the sheep may take, with all attempts."),
    cfg.ListOpt(
        "sheepdog_pools", default=[],
        help="Copy policies that volumes can have, each a pool for the scheduler: a number of "
             "copies like 3, or data and parity strips like 4:2.  Unset: the policy that the "
             "cluster was formatted with."),
    cfg.StrOpt(
        "sheepdog_protocol", default="iscsi", choices=["iscsi", "local"],
        help="How volumes are attached to hosts: iscsi, by tgt on this host, or local, as files "
             "of a sheepfs that is mounted on the very host that wants the volume."),
    cfg.StrOpt(
        "sheepdog_mount_point", default="/var/lib/sheepstack/mnt",
        help="Where sheepfs is mounted, for the protocol local."),
    cfg.StrOpt(
        "sheepdog_iscsi_gateway", default="unix:/var/lib/sheepstack/sock",
        help="The sheep through which tgt reaches the cluster, best the Unix socket of the one "
             "on the same host."),
    cfg.StrOpt(
        "sheepdog_iscsi_directory", default="/var/lib/sheepstack/iscsi",
        help="Where the targets are written down, from which sheep-iscsi restore makes them "
             "anew after tgtd was restarted."),
    cfg.IntOpt(
        "sheepdog_iscsi_control_port", default=0, min=0,
        help="The -C that tgtd was started with."),
    cfg.ListOpt(
        "sheepdog_iscsi_exporters", default=[],
        help="Hosts that export volumes by iSCSI instead of this one, by the names with which "
             "sheep-iscsi serve runs on each.  Attachments get the portals of all of them."),
    cfg.FloatOpt(
        "sheepdog_iscsi_exporter_timeout", default=10, min=1,
        help="Seconds to wait for an exporting host; after that others have to do."),
    cfg.FloatOpt(
        "sheepdog_replication_interval", default=60, min=1,
        help="Seconds between two shipments of what changed to the replication target."),
    cfg.FloatOpt(
        "sheepdog_leftovers_age", default=86400, min=1,
        help="Seconds after which a temporary snapshot or VDI of this driver that is still there "
             "is taken for the leftover of a cinder-volume that was killed, and deleted.  More "
             "than the longest copy between pools may take."),
]
