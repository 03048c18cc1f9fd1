"""Partitions judged by Great Expectations: rules, quarantine, verdicts."""
