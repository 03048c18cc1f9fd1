"""Intervals and test statistics, in one place: each is named after its method and says where it is from. Callers only ask."""
