"""Cinder volumes in sheep: ``cinder_driver.driver.SheepdogDriver``, and a backup driver.

A volume is a VDI, and a snapshot of it a snapshot of that VDI; clones share their objects.
"""
