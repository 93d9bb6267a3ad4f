"""Where an image lies: ``sheepdog://<cluster-uuid>/<image>/<snapshot>``, as Glance says it."""

import urllib.parse
from typing import NamedTuple

_PREFIX = "sheepdog://"


class ImageLocation(NamedTuple):
    """A snapshot of the VDI ``image``."""

    cluster: str
    image: str
    snapshot: str


def parse(url) -> ImageLocation | None:
    """None for what lies elsewhere."""
    if not url or not url.startswith(_PREFIX):
        return None
    parts = [urllib.parse.unquote(part) for part in url[len(_PREFIX):].split("/")]
    return ImageLocation(*parts) if len(parts) == 3 and all(parts) else None


def urls_of(image_location) -> list:
    """All that ``clone_image`` was told: the direct URL, and those of the locations."""
    direct, locations = image_location or (None, None)
    return [direct] + [each.get("url") for each in locations or ()]
