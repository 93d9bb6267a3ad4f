"""Where an image lies: ``sheepdog://<cluster-uuid>/<image>/<snapshot>``.

The cluster is named by its UUID and not by an address, so that whoever reads a location can
tell whether the image lies in his own cluster.  ``<image>`` is the name of a VDI.
"""

import urllib.parse

from glance_store import exceptions, location

SCHEME = "sheepdog"
_PREFIX = SCHEME + "://"


class StoreLocation(location.StoreLocation):
    """``cluster``, ``image`` and ``snapshot`` are strings, unquoted."""

    def process_specs(self):
        self.cluster = self.specs["cluster"]
        self.image = self.specs["image"]
        self.snapshot = self.specs["snapshot"]

    def get_uri(self) -> str:
        return _PREFIX + "/".join(
            urllib.parse.quote(part, safe="")
            for part in (self.cluster, self.image, self.snapshot))

    def parse_uri(self, uri: str) -> None:
        """Raises BadStoreUri."""
        self.validate_schemas(uri, valid_schemas=(_PREFIX,))
        parts = [urllib.parse.unquote(part) for part in uri[len(_PREFIX):].split("/")]
        if len(parts) != 3 or not all(parts):
            raise exceptions.BadStoreUri(
                message="A location in sheep is sheepdog://<cluster-uuid>/<image>/<snapshot>, "
                        "not %s" % uri)
        self.cluster, self.image, self.snapshot = parts
