"""Options of the application, as they stand in its section of the paste file."""

from oslo_config import cfg

from sheepstack.client import parse_copy_policy


def _copy_policies(text):
    """``{name: copy policy}`` of ``name=copy policy,...``.  (oslo's dictionaries have colons,
    which copy policies have, too.)  Raises ValueError."""
    if not isinstance(text, str):
        return text
    policies = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, policy = (word.strip() for word in part.partition("="))
        if not name or not equals:
            raise ValueError("'%s' is not NAME=COPY-POLICY" % part)
        parse_copy_policy(policy)
        policies[name] = policy
    return policies


STORAGE = [
    cfg.ListOpt("sheep", default=["127.0.0.1:7000"],
                help="Gateways of the sheep cluster, host:port or unix:/path, in order of "
                     "preference."),
    cfg.StrOpt("sheep_auth_key_file", help="File with the cluster's secret."),
    cfg.FloatOpt("sheep_timeout", default=30, min=1,
                 help="Seconds that a request to the cluster may take."),
    cfg.Opt("copy_policies", type=_copy_policies, default={},
            help="The copy policy of each storage policy, like gold=3,silver=4:2; others "
                 "have the cluster's default number of copies."),
    cfg.IntOpt("inline_max", default=1 << 20, min=0, max=1 << 20,
               help="Bytes of the largest object that is packed with others; larger ones get "
                    "4 MiB objects of their own."),
    cfg.IntOpt("buffer_memory", default=256 << 20, min=32 << 20,
               help="Bytes of object data that a process buffers at most."),
    cfg.FloatOpt("lease", default=30, min=2,
                 help="Seconds after which a process that does not say so counts as dead."),
]

DATABASE = [
    cfg.StrOpt("state_dir", default="/var/lib/sheep-swift",
               help="Directory of the SQLite database."),
    cfg.StrOpt("connection", secret=True,
               help="SQLAlchemy URL of the database; SQLite in state_dir by default."),
    cfg.FloatOpt("database_patience", default=20, min=0,
                 help="Seconds for which a database that does not answer is asked again."),
]

BACKGROUND = [
    cfg.FloatOpt("sweep_interval", default=30, min=0.1,
                 help="Seconds between two rounds of the sweeper."),
    cfg.FloatOpt("grace", default=300, min=0,
                 help="Seconds for which the bytes of an object that was overwritten or deleted "
                      "are kept for those who are reading it."),
    cfg.FloatOpt("reclaim_age", default=7 * 86400, min=0,
                 help="Seconds for which it is remembered that a name was deleted."),
    cfg.FloatOpt("expirer_interval", default=60, min=0.1,
                 help="Seconds between two rounds of the expirer."),
]

HEALTH = [
    cfg.ListOpt("zookeeper", default=[],
                help="host:port of the ZooKeeper servers of the cluster, for the health check."),
]

OPTIONS = STORAGE + DATABASE + BACKGROUND + HEALTH


def list_opts():
    """For oslo-config-generator."""
    return [("app:proxy-server", OPTIONS)]


def read(conf: dict) -> cfg.ConfigOpts:
    """The options in a paste section; what is not ours in it is left to others.

    Raises ValueError where a value is wrong.
    """
    options = cfg.ConfigOpts()
    options.register_opts(OPTIONS)
    options([], project="sheep-swift", default_config_files=[], default_config_dirs=[])
    for option in OPTIONS:
        if option.name in conf:
            try:
                options.set_override(option.name, option.type(conf[option.name]))
            except ValueError as error:
                raise ValueError("option '%s': %s" % (option.name, error)) from None
    if not options.connection:
        options.set_override("connection", "sqlite:///%s/objects.db" % options.state_dir)
    return options


def auth_key(options):
    """The cluster's secret, or None.  Raises OSError."""
    if not options.sheep_auth_key_file:
        return None
    with open(options.sheep_auth_key_file, "rb") as file:
        return file.read(4096)
