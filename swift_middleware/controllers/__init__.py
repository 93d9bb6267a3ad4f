"""What the verbs of Swift's API do.

These are Swift's own proxy controllers: who may do what, what a request must look like, CORS,
caches and defaults are decided there.  Where those would ask a storage node, these ask the
database and the store.
"""
