"""Glance images in sheep: a backend of glance_store, named ``sheepdog`` there.

An image is a snapshot of a VDI of its own, so that a volume which begins as the image is a
clone, made in constant time.
"""
