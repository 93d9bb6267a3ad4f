"""What an operator can set, in ``[glance_store]`` or in the section of each store."""

from oslo_config import cfg

OPTIONS = [
    cfg.ListOpt(
        "sheepdog_store_addresses", default=["127.0.0.1:7000"],
        help="""
Addresses of sheep, in order of preference.

The store talks to the first one that answers, and goes on with the next one when that fails.

Possible values:
    * a comma separated list of ``host:port``, ``[IPv6 address]:port`` or, for a sheep on the
      same host, ``unix:/path/of/its/directory/sock``

"""),
    cfg.StrOpt(
        "sheepdog_store_auth_key_file",
        help="""
File with the secret that the sheep and their clients share.

Possible values:
    * the path of the file that the sheep got as ``--auth-key-file``
    * unset, for a cluster without a secret

Related options:
    * None

"""),
    cfg.FloatOpt(
        "sheepdog_store_timeout", default=30, min=1,
        help="""
Seconds that one request to the sheep may take, with all attempts.

A sheep that dies in the middle of an upload or a download goes unnoticed as long as another
one of ``sheepdog_store_addresses`` answers within this time.

"""),
    cfg.StrOpt(
        "sheepdog_store_copy_policy",
        help="""
How images are kept: the number of copies, or an erasure code.

Possible values:
    * a number, like ``3``, for so many copies
    * two numbers, like ``4:2``, for so many data and parity strips
    * unset, for what the cluster was formatted with

"""),
    cfg.IntOpt(
        "sheepdog_store_chunk_size", min=1, max=1024,
        help="""
Size of the objects of an image, in MiB.

Possible values:
    * a power of two
    * unset, for what the cluster was formatted with

"""),
    cfg.StrOpt(
        "sheepdog_store_prefix", default="image-",
        help="""
What the names of the store's VDIs begin with; the image's id follows.

Two stores that share a cluster, say with different copy policies, must differ in it.

"""),
    cfg.FloatOpt(
        "sheepdog_store_unfinished_age", default=600, min=10,
        help="""
Seconds after which an upload that does not go on, as its glance-api was killed, is removed.

A later upload of the same image removes it as well, after a few seconds.

"""),
]
