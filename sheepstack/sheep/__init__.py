"""The daemon: gateway, replicas, VDI service, recovery, membership."""
