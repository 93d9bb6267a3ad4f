"""The sample pipeline for Keystone, as it stands in etc/, with Keystone."""

import pytest
import requests

from tests.swift.keystone import PASSWORD, Keystone
from tests.swift.service import ObjectApi


@pytest.fixture(scope="module")
def keystone(tmp_path_factory):
    server = Keystone(tmp_path_factory.mktemp("keystone"))
    yield server.start()
    server.stop()


@pytest.fixture
def api(keystone, sheep, memcached, tmp_path):
    keystone.add_user("swift", "service", "admin", "service")
    api = ObjectApi(tmp_path / "api", sheep.addresses, memcached)
    api.take_sample(
        "swift-proxy-keystone.conf.sample", sheep.addresses, memcached,
        ("http://192.0.2.30:5000/v3", keystone.url),
        ("http://192.0.2.30:5000", keystone.url.removesuffix("/v3")), ("CHANGE_ME", PASSWORD))
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
