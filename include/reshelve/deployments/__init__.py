"""What should serve, on S3: the pointer, the log, the table of a release, leases and freezes."""
