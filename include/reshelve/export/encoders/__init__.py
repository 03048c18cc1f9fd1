"""Each encoder as a TensorFlow graph of stock operations."""
