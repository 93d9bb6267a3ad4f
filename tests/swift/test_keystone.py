"""The sample pipeline for Keystone, as it stands in etc/, with Keystone."""

import getpass
import pathlib

import pytest
import requests

from tests.swift.keystone import PASSWORD, Keystone
from tests.swift.service import ObjectApi

_ETC = pathlib.Path(__file__).resolve().parents[2] / "etc" / "sheepstack"


@pytest.fixture(scope="module")
def keystone(tmp_path_factory):
    server = Keystone(tmp_path_factory.mktemp("keystone"))
    yield server.start()
    server.stop()


@pytest.fixture
def api(keystone, sheep, memcached, tmp_path):
    keystone.add_user("swift", "service", "admin", "service")
    api = ObjectApi(tmp_path / "api", sheep.addresses, memcached)
    sample = (_ETC / "swift-proxy-keystone.conf.sample").read_text()
    for old, new in (
            ("bind_port = 8080", "bind_port = %d" % api.port), ("workers = 2", "workers = 1"),
            ("user = swift\n", "user = %s\n" % getpass.getuser()),
            ("swift_dir = /etc/swift", "swift_dir = %s" % api.directory),
            ("192.0.2.11:7000,192.0.2.12:7000,192.0.2.13:7000", ",".join(sheep.addresses)),
            ("#state_dir = /var/lib/sheep-swift", "state_dir = %s/state" % api.directory),
            ("127.0.0.1:11211", "127.0.0.1:%d" % memcached.port),
            ("http://192.0.2.30:5000/v3", keystone.url),
            ("http://192.0.2.30:5000", keystone.url.removesuffix("/v3")),
            ("CHANGE_ME", PASSWORD)):
        assert old in sample, old
        # The user of the process, not the one that authtoken logs in as.
        sample = sample.replace(old, new, 1 if old.startswith("user = ") else -1)
    api.config.write_text(sample)
    (api.directory / "swift.conf").write_text((_ETC / "swift.conf.sample").read_text())
    yield api.start()
    api.stop()


@pytest.mark.timeout(400)
def test_users_and_projects_are_keystones(keystone, api):
    alice, project = keystone.add_user("alice", "sheep", "member")
    keystone.add_user("bob", "sheep", "reader")
    url = "%s/v1/AUTH_%s" % (api.url, project.id)

    def ask(user, method, path="", where="sheep", **options):
        return requests.request(method, url + path, timeout=60, headers={
            "X-Auth-Token": keystone.login(user, where).get_token()}, **options)
    assert ask("alice", "PUT", "/wool").status_code == 201
    assert ask("alice", "PUT", "/wool/o", data=b"hers").status_code == 201
    assert ask("alice", "GET", "/wool/o").content == b"hers"
    # Who has no role that operates an account, no token, or another project.
    assert ask("bob", "GET", "/wool/o").status_code == 403
    assert requests.get(url + "/wool/o", timeout=60).status_code == 401
    assert requests.get(url + "/wool/o", timeout=60, headers={
        "X-Auth-Token": "made up"}).status_code == 401
    keystone.add_user("eve", "wolves", "member")
    assert ask("eve", "GET", "/wool/o", "wolves").status_code == 403

    # S3, with the keys that Keystone gives.
    import boto3
    import botocore.config
    import botocore.exceptions
    keys = keystone.client().ec2.create(alice.id, project.id)

    def s3(secret):
        return boto3.client(
            "s3", endpoint_url=api.url, aws_access_key_id=keys.access,
            aws_secret_access_key=secret, region_name="us-east-1",
            config=botocore.config.Config(s3={"addressing_style": "path"}))
    assert s3(keys.secret).get_object(Bucket="wool", Key="o")["Body"].read() == b"hers"
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch|Forbidden"
                       "|AccessDenied|403"):
        s3("wrong").get_object(Bucket="wool", Key="o")
