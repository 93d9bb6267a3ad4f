"""Which files there are."""

from sheepstack.dog import cluster, node, vdi, vdi_list
from sheepstack.export.sheepfs.entries import Directory
from sheepstack.export.sheepfs.text import TextFile


def plant(volumes, dog_text, gateways, page_cache, read_ahead) -> Directory:
    """The root.  ``gateways``: their addresses."""
    def listing(group, lines):
        return TextFile(lambda: dog_text.of(group, lines))

    addresses = "".join("%s\n" % gateway for gateway in gateways).encode()
    return Directory({
        "vdi": Directory({
            "list": listing(vdi.GROUP, vdi_list.list_lines),
            "mount": TextFile(order=volumes.mount),
            "unmount": TextFile(order=volumes.unmount),
        }),
        "volume": volumes,
        "node": Directory({
            "list": listing(node.GROUP, node.list_lines),
            "info": listing(node.GROUP, node.info_lines),
        }),
        "cluster": Directory({
            "info": listing(cluster.GROUP, cluster.info_lines),
        }),
        "config": Directory({
            "gateways": TextFile(lambda: addresses),
            "page_cache": TextFile(page_cache.tell, page_cache.order),
            "read_ahead": TextFile(read_ahead.tell, read_ahead.order),
        }),
    })
