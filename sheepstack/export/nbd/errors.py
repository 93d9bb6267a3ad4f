"""Errors of exports."""


class BadExport(Exception):
    """No VDI, or not one that this server may export, goes by that name."""


class ExportBusy(Exception):
    """Another client has the export open for writing."""
