"""A pipeline for any WSGI server, in native threads.

::

    from swift_middleware.wsgi import application
    app = application("/etc/sheep-swift/proxy-server.conf")

Swift's S3 API wants to see the path and the headers of a request as they came, which only
eventlet's server hands on: here they are put together again from what every server gives.
"""

from urllib.parse import quote

from swift.common.wsgi import loadapp

_UNPREFIXED = {"CONTENT_TYPE": "Content-Type", "CONTENT_LENGTH": "Content-Length"}

#: What clients leave unquoted in paths, beside letters and digits.
_SAFE = "/~-._"


class RawRequests:
    """Supplies ``RAW_PATH_INFO`` and ``headers_raw`` where the server does not."""

    def __init__(self, app):
        self._app = app

    def __call__(self, environ, start_response):
        if "RAW_PATH_INFO" not in environ:
            environ["RAW_PATH_INFO"] = _raw_path(environ)
        if "headers_raw" not in environ:
            environ["headers_raw"] = tuple(_raw_headers(environ))
        return self._app(environ, start_response)


def _raw_path(environ):
    for name in ("REQUEST_URI", "RAW_URI"):
        if environ.get(name, "").startswith("/"):
            return environ[name].partition("?")[0]
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return quote(path.encode("latin1"), safe=_SAFE)


def _raw_headers(environ):
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-").title(), value
        elif name in _UNPREFIXED and value:
            yield _UNPREFIXED[name], value


def application(config: str):
    """The pipeline of a paste file as a WSGI application."""
    return RawRequests(loadapp(config, global_conf={"log_name": "sheep-swift"}))
