"""Kinds of ranker, a folder each: see `reshelve/kind.py` for what one has to answer, and docs/reference/extending.md to add one."""
