"""The ground floor: ranker files, as frozen and validated forms. Imports no other package."""
