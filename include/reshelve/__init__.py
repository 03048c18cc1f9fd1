"""Reshelve: retrain the models that order an online shop's shelves, every night, and roll them out safely."""
