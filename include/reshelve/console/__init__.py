"""What a person sees of releases: the Releases page's reader, and `reshelve status`."""
