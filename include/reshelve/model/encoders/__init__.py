"""The transformers that a ranker can stand on: a file each, and a line each in `registry.py`."""
