"""The faces through which hypervisors and administrators touch VDIs as disks or files."""
