"""A filter that answers ``/health`` and ``/metrics`` itself, in front of authentication.

For paste: ``use = egg:sheepstack#swift_status``.
"""

import json

from swift.common.swob import Request, Response

from swift_middleware import health, metrics
from swift_middleware.storage.store import TRANSIENT


class Status:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            path = environ.get("PATH_INFO")
            if path == "/health":
                return self._health(Request(environ))(environ, start_response)
            if path == "/metrics":
                return Response(request=Request(environ), body=metrics.shown(), headers={
                    "Content-Type": metrics.CONTENT_TYPE})(environ, start_response)
        return self.app(environ, start_response)

    def _health(self, req):
        api = self._pipeline_final_app
        try:
            told = health.report(api.store, api.options)
        except TRANSIENT as error:
            # What is needed to begin at all is not there.
            told = {"start": str(error)}
        return Response(
            request=req, status=200 if health.is_healthy(told) else 503,
            content_type="application/json", body=json.dumps(told).encode())


def filter_factory(global_conf, **local_conf):
    return Status
