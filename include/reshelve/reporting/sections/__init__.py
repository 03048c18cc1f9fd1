"""The sections of a report, each from a night's results: what is missing is said, never guessed."""
