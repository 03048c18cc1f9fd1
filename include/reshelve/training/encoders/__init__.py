"""Each encoder in torch."""
