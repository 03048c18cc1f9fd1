"""What a model reads beside the texts: counts of the past, postings, overlap of words."""
