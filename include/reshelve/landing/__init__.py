"""From raw files to partitions of events on S3, by the expressions of a mapping file."""
