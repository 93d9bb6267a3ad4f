"""Tempest's tests of volumes and images against a cloud on sheep: ``make tempest``.

    python -m tests.openstack.tempest [--concurrency N] [--keep-logs DIR] [REGEX]
"""

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys

from tests.openstack import settings
from tests.openstack.cinder import GREEN, THREADS
from tests.openstack.daemon import BIN
from tests.openstack.infrastructure import PASSWORD
from tests.openstack.running import running_cloud

ALL = r"^(tempest\.api\.(volume|image)\.|cinder_tempest_plugin\.)"
#: Cannot pass, see doc/source/tempest.rst.
LEFT_OUT = (r"VolumesBackupsAdminTest\.test_volume_backup_export_import|"
            r"ImportImagesTest\.test_image_web_download_import")
_IMAGE_SIZE = 16 << 20
_RESULT = re.compile(r"^\{\d+\} (.+?)(?: \[[\d.]+s\])? \.\.\. (\w+)(?:: (.*))?$")


def write_configuration(cloud, path, images):
    """tempest.conf for what the cloud has; ``images``: two ids."""
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
        "compute": {"image_ref": images[0], "image_ref_alt": images[1]},
        "validation": {"run_validation": False},
        "image": {"build_timeout": 300},
        "image-feature-enabled": {
            "import_image": True, "os_glance_reserved": True},
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
            "extend_attached_volume": False, "consistency_group": False,
            "volume_image_dep_tests": True},
    })


def run(cloud, regex, concurrency, output):
    """tempest's exit status; what it prints goes to the file ``output`` too."""
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
    write_configuration(cloud, workspace / "etc" / "tempest.conf", images)
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
    return ran.returncode


def summary(lines):
    """What became of the tests: how many by outcome, failures, and reasons for skipping."""
    outcomes, failed, skipped = collections.Counter(), [], collections.Counter()
    for line in lines:
        found = _RESULT.match(line)
        if found:
            name, outcome, reason = found.groups()
            outcomes[outcome] += 1
            if outcome == "FAILED":
                failed.append(name)
            if outcome == "SKIPPED":
                skipped[reason] += 1
    return outcomes, failed, skipped


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.openstack.tempest")
    parser.add_argument("regex", nargs="?", default=ALL, help="of the tests (default: all)")
    parser.add_argument("--concurrency", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep-logs", metavar="DIR", help="copy the services' logs there")
    given = parser.parse_args()
    with running_cloud() as cloud:
        output = cloud.directory / "tempest.out"
        status = run(cloud, given.regex, given.concurrency, output)
        outcomes, failed, skipped = summary(output.read_text().splitlines())
        if given.keep_logs:
            os.makedirs(given.keep_logs, exist_ok=True)
            for log in [*cloud.directory.glob("*.log"), output]:
                shutil.copy(log, given.keep_logs)
    print("\n".join("%d %s" % (count, outcome) for outcome, count in outcomes.most_common()))
    for reason, count in skipped.most_common():
        print("skipped %d: %s" % (count, reason))
    for name in failed:
        print("failed: " + name)
    return status


if __name__ == "__main__":
    sys.exit(main())
