"""The watch: measure what serves, say what is wrong, decide by a table, act within bounds."""
