"""VDIs as NBD exports: a plugin for nbdkit, and the command ``sheep-nbd`` that starts it."""
