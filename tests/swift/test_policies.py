"""Storage policies: each is a copy policy of the cluster."""

import random

import pytest

from tests.swift.service import USUAL_PIPELINE, Account, ObjectApi

MIB = 1 << 20


@pytest.mark.parametrize("text, expected", [
    ("gold=3,silver=4:2", {"gold": "3", "silver": "4:2"}), (" gold = 2 ", {"gold": "2"}),
    ("", {}), ("gold", None), ("gold=", None), ("gold:3", None), ("gold=4:0", None),
    ("=3", None)])
def test_what_copy_policies_may_say(text, expected):
    from swift_middleware import config
    if expected is None:
        with pytest.raises(ValueError, match="copy_policies"):
            config.read({"copy_policies": text})
    else:
        assert config.read({"copy_policies": text}).copy_policies == expected


def test_a_policy_that_is_not_there_is_refused(tmp_path, memcached):
    api = ObjectApi(tmp_path / "api", ["127.0.0.1:1"], memcached,
                    options=["copy_policies = bronze=3"])
    done = api.run("check", check=False)
    assert done.returncode == 1 and "'bronze'" in done.stderr


@pytest.mark.timeout(300)
def test_a_policy_with_an_erasure_code_outlives_a_sheep(make_api, make_cluster_of_its_own):
    sheep = make_cluster_of_its_own(4, 3)
    api = make_api(sheep.addresses, pipeline=USUAL_PIPELINE,
                   options=["copy_policies = gold=3,silver=2:2", "sheep_timeout = 60"])
    account = Account(api.url)
    told = account.session.get(api.url + "/info").json()["swift"]["policies"]
    assert {policy["name"]: policy.get("default", False) for policy in told} == {
        "gold": True, "silver": False}
    container = account.new_container(X_Storage_Policy="silver")
    assert account.ask("HEAD", container).headers["X-Storage-Policy"] == "silver"
    rand = random.Random(5)
    contents = {"%s/%d" % (container, size): rand.randbytes(size)
                for size in (0, 100, 300000, 5 * MIB + 17)}
    for path, data in contents.items():
        account.made(path, data=data)
    other = account.new_container()
    account.made(other + "/o", data=b"in copies")
    policies = {}
    with sheep.client() as client:
        for info in client.list_vdis():
            policies.setdefault(info.copy_policy, []).append(info.name)
    # Of each policy a log; of the second one large objects, too.
    assert sorted(len(names) for names in policies.values()) == [1, 2]

    sheep.kill(3)
    for path, data in contents.items():
        answer = account.ask("GET", path)
        assert (answer.status_code, answer.content) == (200, data), path
    path = "%s/%d" % (container, 5 * MIB + 17)
    answer = account.ask("GET", path, {"Range": "bytes=4194300-4194310"})
    assert answer.content == contents[path][4194300:4194311]
    account.made(container + "/after", data=b"y" * 2 * MIB)
    sheep.restart(3)
    sheep.wait_recovered()
    assert account.ask("GET", container + "/after").content == b"y" * 2 * MIB
    assert account.ask("GET", container).text.split() == sorted(
        [path.rpartition("/")[2] for path in contents] + ["after"])
    api.stop()
    checked = api.run("check", check=False)
    assert "agree" in checked.stdout, checked.stdout
