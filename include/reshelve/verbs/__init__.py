"""The verbs of the `reshelve` command, by what they are about."""
