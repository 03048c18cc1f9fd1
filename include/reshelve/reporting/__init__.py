"""The report of a night: one HTML file that a person reads before they believe a version."""
