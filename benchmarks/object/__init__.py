"""The object API beside Swift itself: the same pipeline, workers and client for both.

``python -m benchmarks.object --help``; it needs what ``make swift-venv`` installs.
"""
