"""How a version keeps and multiplies its numbers: a file each, and a line each in `registry.py`."""
