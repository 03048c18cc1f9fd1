"""The Releases page: what serves, what was decided and why, and the buttons that start the DAGs which change it."""
