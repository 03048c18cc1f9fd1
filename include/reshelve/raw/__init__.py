"""Raw files of any format as one query, letter for letter."""
