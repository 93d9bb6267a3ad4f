"""Configuration files of OpenStack's services."""

import pathlib
import sys

from tests.functional.harness import HOST
from tests.openstack.infrastructure import PASSWORD

#: Where the files lie that packages bring along.
ETC = pathlib.Path(sys.prefix) / "etc"
REGION = "RegionOne"


def write(path, sections):
    """Write ``{section: {option: value}}`` as an ini file; True and False in lower case."""
    lines = []
    for section, options in sections.items():
        lines.append("[%s]" % section)
        lines += ["%s = %s" % (name, str(value).lower() if isinstance(value, bool) else value)
                  for name, value in options.items()]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")
    return path


def credentials(cloud, username):
    """How a service proves itself to Keystone."""
    return {
        "www_authenticate_uri": cloud.keystone.url,
        "auth_url": cloud.keystone.url,
        "auth_type": "password",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "project_name": "service",
        "username": username,
        "password": PASSWORD,
        "region_name": REGION,
    }


def uwsgi(port, module, processes, *options):
    """The command that serves a WSGI application with native threads."""
    return [
        pathlib.Path(sys.executable).parent / "uwsgi",
        "--http-socket", "%s:%d" % (HOST, port), "--module", module,
        "--virtualenv", sys.prefix, "--master", "--no-orphans", "--die-on-term",
        "--processes", processes, "--threads", 4, "--enable-threads", "--lazy-apps",
        "--need-app", "--thunder-lock", "--disable-logging", "--buffer-size", 65535,
        "--http-chunked-input", "--http-auto-chunked", "--http-raw-body",
        # Clients send images in chunks of a MiB.
        "--chunked-input-limit", 16 << 20, "--chunked-input-timeout", 60,
        "--socket-timeout", 60, "--add-header", "Connection: close", *options]
