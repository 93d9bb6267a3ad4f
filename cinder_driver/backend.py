"""A cluster as the configuration names it."""

from typing import NamedTuple

from cinder import exception

from sheepstack.client import Cluster


class Backend(NamedTuple):
    """``name``: ``default``, or the ``backend_id`` of a replication target."""

    name: str
    addresses: tuple
    auth_key_file: str | None = None
    auth_key: bytes | None = None

    def open(self, timeout) -> Cluster:
        """Raises InvalidConfigurationValue."""
        try:
            return Cluster(self.addresses, self.auth_key, timeout=timeout)
        except ValueError as error:
            raise exception.InvalidConfigurationValue(
                option="sheepdog_addresses or sheepdog_auth_key_file", value=error) from error


DEFAULT = "default"


def configured(options) -> Backend:
    """The cluster of a backend's own options; raises InvalidConfigurationValue."""
    return with_key(DEFAULT, options.sheepdog_addresses, options.sheepdog_auth_key_file)


def replication_targets(devices) -> list:
    """From the values of ``replication_device``; raises InvalidConfigurationValue."""
    found = []
    for device in devices or ():
        known = {"backend_id", "addresses", "auth_key_file"}
        if not {"backend_id", "addresses"} <= set(device) <= known:
            raise exception.InvalidConfigurationValue(
                option="replication_device", value="%s: it has backend_id, addresses (separated "
                "by spaces) and perhaps auth_key_file" % device)
        found.append(with_key(device["backend_id"], device["addresses"].split(),
                              device.get("auth_key_file")))
    return found


def with_key(name, addresses, path) -> Backend:
    """``path``: of the file with the secret, or None; raises InvalidConfigurationValue."""
    key = None
    if path:
        try:
            with open(path, "rb") as file:
                key = file.read()
        except OSError as error:
            raise exception.InvalidConfigurationValue(
                option="sheepdog_auth_key_file", value=error) from error
    return Backend(name, tuple(addresses), path or None, key)
