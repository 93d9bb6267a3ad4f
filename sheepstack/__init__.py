"""Sheepdog's distributed storage for virtual machines, in Python."""
