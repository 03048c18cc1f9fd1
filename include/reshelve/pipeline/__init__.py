"""The night as a whole: pinned, planned, published."""
