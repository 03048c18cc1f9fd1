"""The serving agent: beside each model server, makes it serve what the pointers say, and reports what it serves."""
