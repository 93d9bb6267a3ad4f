"""The configuration that is made where none is given: one host, all that Swift can."""

import getpass
import os
import secrets

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = %(prefix)s
swift_hash_path_suffix = %(suffix)s

[storage-policy:0]
name = standard
default = yes
"""

_PROXY_CONF = """\
# Made by sheep-swift, which does not touch it again.
[DEFAULT]
bind_ip = %(bind)s
bind_port = %(port)d
workers = %(workers)d
user = %(user)s
swift_dir = %(directory)s
log_level = INFO

[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck status proxy-logging cache listing_formats
    bulk tempurl ratelimit crossdomain formpost s3api tempauth staticweb copy container-quotas
    account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server

[app:proxy-server]
use = egg:sheepstack#swift
sheep = %(sheep)s
state_dir = %(directory)s
account_autocreate = true

# One user, the administrator.
[filter:tempauth]
use = egg:swift#tempauth
user_admin_admin = %(password)s .admin .reseller_admin

[filter:cache]
use = egg:sheepstack#shared_cache
path = %(directory)s/cache.db

[filter:status]
use = egg:sheepstack#swift_status

[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true

%(filters)s
"""

_FILTERS = (
    "catch_errors", "gatekeeper", "healthcheck", "proxy-logging", "listing_formats", "bulk",
    "tempurl", "ratelimit", "crossdomain", "formpost", "s3api", "staticweb", "copy",
    "container-quotas", "account-quotas", "slo", "dlo", "symlink")


def configuration(given) -> str:
    """The path of the configuration in ``given.state_dir``, made where it is not there yet.

    Raises OSError.
    """
    directory = os.path.abspath(given.state_dir)
    path = os.path.join(directory, "proxy-server.conf")
    if os.path.exists(path):
        return path
    if given.action != "serve":
        raise OSError("there is no '%s': name a file with --config" % path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _write(os.path.join(directory, "swift.conf"), _SWIFT_CONF % {
        "prefix": secrets.token_hex(16), "suffix": secrets.token_hex(16)})
    password = secrets.token_urlsafe(12)
    _write(path, _PROXY_CONF % {
        "bind": given.bind, "port": given.port, "workers": given.workers,
        "user": getpass.getuser(), "directory": directory, "sheep": given.sheep,
        "password": password, "filters": "\n\n".join(
            "[filter:%s]\nuse = egg:swift#%s" % (name, name.replace("-", "_"))
            for name in _FILTERS)})
    print("sheep-swift: made %s; log in at http://%s:%d/auth/v1.0 as admin:admin with %s"
          % (path, given.bind, given.port, password), flush=True)
    return path


def _write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
