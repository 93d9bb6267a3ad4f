"""What people use works: uploads and downloads of a tree, compared by checksum.

``make conformance`` moves 2,000 files and one of 2 GiB, ``make swift`` fewer and smaller ones.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

from tests.swift.service import USUAL_PIPELINE, Account

ALL = bool(os.environ.get("CONFORMANCE"))
MIB = 1 << 20
FILES = 2000 if ALL else 150
LARGE = (2048 if ALL else 48) * MIB
SEGMENT = (64 if ALL else 16) * MIB

pytestmark = pytest.mark.timeout(1800 if ALL else 300)


@pytest.fixture(scope="module")
def api(tmp_path_factory, sheep, memcached):
    from tests.swift.service import ObjectApi
    api = ObjectApi(tmp_path_factory.mktemp("api"), sheep.addresses, memcached,
                    pipeline=USUAL_PIPELINE, workers=2)
    yield api.start()
    api.stop()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A directory with small files, and one large one below ``large``."""
    top = tmp_path_factory.mktemp("tree")
    rand = random.Random(11)
    for number in range(FILES):
        path = top / ("d%02d" % (number % 23)) / ("f %d ü" % number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rand.randbytes(rand.randrange(0, 20000)))
    (top / "large").mkdir()
    with (top / "large" / "one").open("wb") as file:
        for _ in range(LARGE // MIB):
            file.write(rand.randbytes(MIB))
    return top


def sums(top):
    found = {}
    for path in pathlib.Path(top).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(top))] = hashlib.file_digest(file, "md5").hexdigest() \
                    if hasattr(hashlib, "file_digest") else hashlib.md5(file.read()).hexdigest()
    return found


def run(*argv, cwd, env=None):
    # What a developer's shell says of some cloud is not meant for this one.
    ours = {name: value for name, value in os.environ.items()
            if not name.startswith(("AWS_", "OS_", "RCLONE_"))}
    done = subprocess.run([str(arg) for arg in argv], cwd=cwd, capture_output=True, text=True,
                          env={**ours, **(env or {})})
    assert done.returncode == 0, "%s\n%s\n%s" % (argv, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def test_python_swiftclient(api, tree, tmp_path):
    env = {"ST_AUTH": api.url + "/auth/v1.0", "ST_USER": "test:tester", "ST_KEY": "testing"}
    swift = pathlib.Path(sys.executable).with_name("swift")
    run(swift, "upload", "swiftclient", ".", "--segment-size", SEGMENT, "--use-slo",
        cwd=tree, env=env)
    run(swift, "download", "swiftclient", "-D", tmp_path / "back", cwd=tmp_path, env=env)
    assert sums(tmp_path / "back") == sums(tree)
    assert "Bytes: " in run(swift, "stat", "swiftclient", cwd=tmp_path, env=env)
    for container in ("swiftclient", "swiftclient_segments"):
        run(swift, "delete", container, cwd=tmp_path, env=env)
    assert "swiftclient" not in run(swift, "list", cwd=tmp_path, env=env)


def test_openstackclient(api, tree, tmp_path):
    account = Account(api.url)
    login = ("--os-auth-type", "admin_token", "--os-endpoint", account.url,
             "--os-token", account.token)
    openstack = pathlib.Path(sys.executable).with_name("openstack")
    run(openstack, *login, "container", "create", "osc", cwd=tree)
    run(openstack, *login, "object", "create", "osc", "large/one", cwd=tree)
    assert "large/one" in run(openstack, *login, "object", "list", "osc", cwd=tree)
    run(openstack, *login, "object", "save", "osc", "large/one", "--file", tmp_path / "one",
        cwd=tree)
    assert sums(tmp_path)["one"] == sums(tree)["large/one"]
    run(openstack, *login, "container", "delete", "--recursive", "osc", cwd=tree)
    assert account.ask("HEAD", "/osc").status_code == 404


@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed")
@pytest.mark.parametrize("kind", ["swift", "s3"])
def test_rclone(api, tree, tmp_path, kind):
    config = tmp_path / "rclone.conf"
    config.write_text({
        "swift": "[r]\ntype = swift\nuser = test:tester\nkey = testing\n"
                 "auth = %s/auth/v1.0\nauth_version = 1\nchunk_size = %dM\n",
        "s3": "[r]\ntype = s3\nprovider = Other\naccess_key_id = test:tester\n"
              "secret_access_key = testing\nendpoint = %s\nregion = us-east-1\n"
              "force_path_style = true\nchunk_size = %dM\nupload_cutoff = 16M\n",
    }[kind] % (api.url, SEGMENT // MIB))
    rclone = ("rclone", "--config", config, "--retries", "1", "--transfers", "8")
    run(*rclone, "copy", tree, "r:rclone-" + kind, cwd=tmp_path)
    run(*rclone, "check", tree, "r:rclone-" + kind, "--download", cwd=tmp_path)
    run(*rclone, "copy", "r:rclone-" + kind, tmp_path / "back", cwd=tmp_path)
    assert sums(tmp_path / "back") == sums(tree)
    run(*rclone, "purge", "r:rclone-" + kind, cwd=tmp_path)


@pytest.mark.skipif(shutil.which("s3cmd") is None, reason="s3cmd is not installed")
def test_s3cmd(api, tree, tmp_path):
    config = tmp_path / "s3cfg"
    address = api.url.partition("//")[2]
    config.write_text(
        "[default]\naccess_key = test:tester\nsecret_key = testing\nuse_https = False\n"
        "host_base = %s\nhost_bucket = %s\nbucket_location = us-east-1\n"
        "encoding = UTF-8\nmultipart_chunk_size_mb = %d\n" % (address, address, SEGMENT // MIB))
    s3cmd = ("s3cmd", "-c", config, "--no-progress", "--quiet")
    run(*s3cmd, "mb", "s3://s3cmd", cwd=tree)
    run(*s3cmd, "sync", ".", "s3://s3cmd/", cwd=tree)
    (tmp_path / "back").mkdir()
    run(*s3cmd, "get", "--recursive", "s3://s3cmd/", tmp_path / "back", cwd=tmp_path)
    assert sums(tmp_path / "back") == sums(tree)
    run(*s3cmd, "rb", "--recursive", "--force", "s3://s3cmd", cwd=tmp_path)


def test_boto3(api, tree, tmp_path):
    import boto3
    import boto3.s3.transfer
    import botocore.config

    s3 = boto3.client("s3", endpoint_url=api.url, aws_access_key_id="test:tester",
                      aws_secret_access_key="testing", region_name="us-east-1",
                      config=botocore.config.Config(max_pool_connections=32))
    s3.create_bucket(Bucket="boto3")
    parts = boto3.s3.transfer.TransferConfig(
        multipart_threshold=SEGMENT, multipart_chunksize=SEGMENT, max_concurrency=4)
    before = sums(tree)

    def upload(key):
        s3.upload_file(str(tree / key), "boto3", key, Config=parts)

    def download(key):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        s3.download_file("boto3", key, str(tmp_path / key), Config=parts)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(upload, before))
        listed = {entry["Key"]: entry["Size"]
                  for page in s3.get_paginator("list_objects_v2").paginate(
                      Bucket="boto3", PaginationConfig={"PageSize": 700})
                  for entry in page["Contents"]}
        assert listed == {key: (tree / key).stat().st_size for key in before}
        list(pool.map(download, before))
    assert sums(tmp_path) == before
    keys = sorted(before)
    for first in range(0, len(keys), 1000):
        gone = s3.delete_objects(Bucket="boto3", Delete={
            "Objects": [{"Key": key} for key in keys[first:first + 1000]]})
        assert "Errors" not in gone, gone["Errors"][:3]
    s3.delete_bucket(Bucket="boto3")
