"""Tempest's tests of volumes and images against a cloud on sheep: ``make tempest``.

    python -m tests.openstack.tempest [--concurrency N] [--keep-logs DIR] [REGEX]
"""

import argparse
import collections
import contextlib
import functools
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import NamedTuple

from tests.functional.harness import HOST
from tests.openstack import settings
from tests.openstack.cinder import GREEN, THREADS
from tests.openstack.cloud import REMOTE_IMAGE
from tests.openstack.daemon import BIN
from tests.openstack.glance import FILES, SHEEP
from tests.openstack.infrastructure import PASSWORD
from tests.openstack.running import running_cloud

ALL = r"^(tempest\.api\.(volume|image)\.|cinder_tempest_plugin\.)"
#: Cannot pass, see doc/source/tempest.rst.
LEFT_OUT = (r"VolumesBackupsAdminTest\.test_volume_backup_export_import"
            r"|rbac\.v3\.test_backups\..*\.test_import_backup")
_IMAGE_SIZE = 16 << 20
_WEB_IMAGE, _WEB_IMAGE_SIZE = "image", 1 << 20
_RESULT = re.compile(r"^\{\d+\} (.+?)(?: \[[\d.]+s\])? \.\.\. (\w+)(?:: (.*))?$")
#: The last words of a test that asks for a service that isn't there.
_NO_ENDPOINT = "EndpointNotFound"
_NOVA = "/tempest/lib/services/compute/"


class Suite(NamedTuple):
    """Tests by the beginning of their names, and what a small driver that keeps volumes and
    images in files reaches with them here: how many pass, how many are skipped."""

    name: str
    beginning: re.Pattern
    passed: int
    skipped: int


SUITES = (
    Suite("volumes", re.compile(r"tempest\.api\.volume|cinder_tempest_plugin\.api"), 207, 33),
    Suite("images", re.compile(r"tempest\.api\.image"), 55, 19),
    Suite("rights", re.compile(r"cinder_tempest_plugin\.rbac"), 0, 0),
    Suite("scenarios", re.compile(r"cinder_tempest_plugin\.scenario"), 0, 0),
)


def glance_options():
    """What Glance has to be told so that more of tempest's tests can run."""
    return {
        "DEFAULT": {
            "enabled_backends": "%s:sheepdog, %s:file, web:http" % (SHEEP, FILES),
            "enabled_import_methods":
                "[glance-direct,web-download,copy-image,glance-download]",
            "show_multiple_locations": True},
        SHEEP: {"weight": 20}, FILES: {"weight": 10},
        "import_filtering_opts": {"allowed_hosts": "[%s]" % HOST, "allowed_ports": "[]"},
    }


@contextlib.contextmanager
def web_server(directory):
    """Serve the files of a directory on a free port of this host, which is given."""
    handler = functools.partial(_Files, directory=str(directory))
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Requests are not written down."""


def write_configuration(cloud, path, images, web):
    """tempest.conf for what the cloud has; ``images``: two ids; ``web``: URL of the images that
    the web server has, less .raw and .qcow2."""
    settings.write(path, {
        "DEFAULT": {"log_file": path.parent / "tempest.log"},
        "oslo_concurrency": {"lock_path": path.parent / "locks"},
        "auth": {
            "use_dynamic_credentials": True, "create_isolated_networks": False,
            "admin_username": "admin", "admin_password": PASSWORD,
            "admin_project_name": "admin", "admin_domain_name": "Default",
            "tempest_roles": "member"},
        "identity": {
            "uri_v3": cloud.keystone.url, "auth_version": "v3", "region": settings.REGION,
            "v3_endpoint_type": "public"},
        "service_available": {
            "cinder": True, "glance": True, "keystone": True, "nova": False, "neutron": False,
            "swift": False, "horizon": False},
        # So it is in Cinder by default.
        "enforce_scope": {"cinder": True},
        "compute": {"image_ref": images[0], "image_ref_alt": images[1]},
        "validation": {"run_validation": False},
        "image": {
            "build_timeout": 300, "http_image": web + ".raw", "http_qcow2_image": web + ".qcow2",
            "alternate_image_endpoint": REMOTE_IMAGE, "disk_formats": "raw,qcow2,iso"},
        "image-feature-enabled": {
            "import_image": True, "os_glance_reserved": True, "manage_locations": True,
            "http_store_enabled": True, "store_weight_enabled": True},
        "volume": {
            "catalog_type": "block-storage", "backend_names": "%s,%s" % (GREEN, THREADS),
            "storage_protocol": "iSCSI", "vendor_name": "sheepstack", "volume_size": 1,
            "volume_type": GREEN, "volume_type_multiattach": "multiattach",
            "build_timeout": 300, "build_interval": 1, "min_microversion": "3.0",
            "max_microversion": "latest", "disk_format": "raw",
            "manage_volume_ref": "source-name,volume-%s",
            "manage_snapshot_ref": "source-name,snapshot-%s"},
        "volume-feature-enabled": {
            "multi_backend": True, "backup": True, "snapshot": True, "clone": True,
            "manage_volume": True, "manage_snapshot": True, "volume_revert": True,
            "replication": True, "consistency_group": True, "concurrency_tests": True,
            "volume_image_dep_tests": True},
    })


def run(cloud, regex, concurrency, output, web):
    """Run tempest; what it prints goes to the file ``output`` too."""
    top = cloud.directory / "tempest"
    top.mkdir()
    # It would write down in our home where the workspace is, and mind that next time.
    subprocess.run([BIN / "tempest", "init", "--workspace-path", top / "workspaces.yaml",
                    top / "workspace"], check=True, stdout=subprocess.DEVNULL)
    workspace = top / "workspace"
    images = []
    for name in ("tempest-a", "tempest-b"):
        path = top / (name + ".raw")
        with path.open("wb") as file:
            file.truncate(_IMAGE_SIZE)
        images.append(cloud.connection.image.create_image(
            name, filename=str(path), disk_format="raw", container_format="bare",
            visibility="public").id)
    cloud.connection.block_storage.create_type(
        name="multiattach", extra_specs={"multiattach": "<is> True"})
    write_configuration(cloud, workspace / "etc" / "tempest.conf", images, web)
    with output.open("w") as file:
        with subprocess.Popen(
                [BIN / "tempest", "run", "--regex", regex, "--exclude-regex", LEFT_OUT,
                 "--concurrency", str(concurrency)],
                cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True) as ran:
            for line in ran.stdout:
                file.write(line)
                file.flush()
                if _RESULT.match(line):
                    print(line, end="", flush=True)


def _make_web_images(directory):
    raw = directory / (_WEB_IMAGE + ".raw")
    raw.write_bytes(os.urandom(_WEB_IMAGE_SIZE))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, raw.with_suffix(".qcow2")],
                   check=True)


def results(lines):
    """(name, outcome, reason for skipping or None) of each test, or class that is skipped."""
    for line in lines:
        found = _RESULT.match(line)
        if found:
            name, outcome, reason = found.groups()
            yield name.removeprefix("setUpClass (").rstrip(")"), outcome, reason


def without_nova(lines) -> set:
    """Names of the tests that failed as they asked for Nova, by the tracebacks in ``lines``."""
    found, name, asked = set(), None, False
    for line in lines:
        begun = _RESULT.match(line)
        if begun:
            name, outcome, _ = begun.groups()
            name, asked = name if outcome == "FAILED" else None, False
        asked = asked or _NOVA in line
        if name and asked and _NO_ENDPOINT in line:
            found.add(name)
    return found


def judge(outcomes, explained, whole) -> list:
    """Print what became of the tests, by suite; what is not as it should be.

    ``explained``: names of tests that failed for want of Nova.  ``whole``: all tests were to
    run, and no fewer may pass, and fewer must be skipped, than with the driver that
    :class:`Suite` tells of.
    """
    complaints = []
    for suite in SUITES:
        ours = [each for each in outcomes if suite.beginning.match(each[0])]
        count = collections.Counter(outcome for _, outcome, _ in ours)
        print("%s: %d passed, %d skipped, %d failed" % (
            suite.name, count["ok"], count["SKIPPED"], count["FAILED"]))
        if whole and suite.passed and (
                count["ok"] < suite.passed or count["SKIPPED"] >= suite.skipped):
            complaints.append("%s: a driver that keeps files passes %d and skips %d" % (
                suite.name, suite.passed, suite.skipped))
    for reason, number in collections.Counter(
            reason for _, outcome, reason in outcomes if outcome == "SKIPPED").most_common():
        print("skipped %d: %s" % (number, reason))
    for name, outcome, _ in outcomes:
        if outcome == "FAILED":
            print("failed: %s%s" % (name, ", as it needs Nova" if name in explained else ""))
            if name not in explained:
                complaints.append("failed: " + name)
    return complaints


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.openstack.tempest")
    parser.add_argument("regex", nargs="?", default=ALL, help="of the tests (default: all)")
    parser.add_argument("--concurrency", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep-logs", metavar="DIR", help="copy the services' logs there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sheepstack-web-") as directory, \
            web_server(directory) as port, \
            running_cloud(glance=glance_options(), remote_glance=True) as cloud:
        _make_web_images(pathlib.Path(directory))
        output = cloud.directory / "tempest.out"
        run(cloud, given.regex, given.concurrency, output,
            "http://%s:%d/%s" % (HOST, port, _WEB_IMAGE))
        lines = output.read_text().splitlines()
        outcomes = list(results(lines))
        if given.keep_logs:
            os.makedirs(given.keep_logs, exist_ok=True)
            for log in [*cloud.directory.glob("*.log"), *cloud.sheep.root.glob("*.log"), output]:
                shutil.copy(log, given.keep_logs)
    if not outcomes:
        sys.exit("no test ran")
    complaints = judge(outcomes, without_nova(lines), given.regex == ALL)
    if complaints:
        sys.exit("\n".join(["", *complaints]))


if __name__ == "__main__":
    main()
