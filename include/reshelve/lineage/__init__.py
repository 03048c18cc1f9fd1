"""A night's run and its stages: their identity, their workspaces and their results."""
