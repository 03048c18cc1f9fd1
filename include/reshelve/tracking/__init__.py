"""Nights in MLflow, for who keeps all experiments there."""
