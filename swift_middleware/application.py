"""The application that stands in the place of ``egg:swift#proxy``."""

import threading
import time

from swift.common import constraints, storage_policy, utils
from swift.common.storage_policy import POLICIES
from swift.proxy import server as proxy
from swift.proxy.controllers import InfoController

from swift_middleware import concurrency, config, metrics
from swift_middleware.background.runner import Runner
from swift_middleware.controllers.account import AccountController
from swift_middleware.controllers.container import ContainerController
from swift_middleware.controllers.object import ObjectController
from swift_middleware.database.engine import parse_url
from swift_middleware.rings import Ring
from swift_middleware.storage.store import Store

_CONTROLLERS = {proxy.AccountController: AccountController,
                proxy.ContainerController: ContainerController,
                InfoController: InfoController}

#: By the number of slashes in a path.
_KINDS = {1: "info", 2: "account", 3: "container"}
_METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "UPDATE"))

#: More at a time costs less; a body is read in pieces of this size.
_CHUNK_SIZE = 256 << 10


class Application(proxy.Application):
    """Swift's proxy with our controllers.

    It is a :class:`swift.proxy.server.Application` because that is what the middlewares above
    it were written for: they look into it for settings, a logger and rings.
    """

    def __init__(self, conf, logger=None):
        self.options = config.read(conf)
        # Later it would be told to the first client.
        parse_url(self.options.connection)
        for policy in POLICIES:
            policy.object_ring = Ring()
        super().__init__({"client_chunk_size": str(_CHUNK_SIZE), **conf}, logger,
                         account_ring=Ring(), container_ring=Ring())
        for name in self.options.copy_policies:
            if POLICIES.get_by_name(name) is None:
                raise ValueError("copy_policies: swift.conf has no storage policy '%s'" % name)
        self._auth_key = config.auth_key(self.options)
        self._store = None
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """Connected when it is first used, which is after the server has forked."""
        if self._store is None:
            with self._lock:
                if self._store is None:
                    store = self.make_store()
                    Runner(store, self.options).start()
                    self._store = store
        return self._store

    def make_store(self) -> Store:
        return Store(self.options, self._auth_key, self._copies_of)

    def _copies_of(self, index):
        policy = POLICIES.get_by_index(index)
        return self.options.copy_policies.get(policy.name if policy else "", "")

    def handle_request(self, req):
        started = time.monotonic()
        resp = super().handle_request(req)
        kind = _KINDS.get(req.path.count("/", 0, -1), "object")
        method = req.method if req.method in _METHODS else "other"
        metrics.requests.labels(kind, method, resp.status_int).inc()
        metrics.seconds.labels(kind, method).observe(time.monotonic() - started)
        return resp

    def get_controller(self, req):
        controller, path = super().get_controller(req)
        if controller is None:
            return None, path
        return _CONTROLLERS.get(controller, ObjectController), path


def load_policies(conf):
    """Have the storage policies and constraints of the ``swift.conf`` that ``conf`` means.

    Swift itself has read those of /etc/swift when it was imported.
    """
    utils.set_swift_dir(conf.get("swift_dir", "/etc/swift"))
    constraints.reload_constraints()
    storage_policy.reload_storage_policies()


def app_factory(global_conf, **local_conf) -> Application:
    """For paste: ``use = egg:sheepstack#swift``."""
    concurrency.choose()
    conf = {**global_conf, **local_conf}
    load_policies(conf)
    return Application(conf)
