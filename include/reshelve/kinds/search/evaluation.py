"""How a search version is asked and counted."""

from reshelve.kinds.catalogue_evaluation import CatalogueEvaluation
from reshelve.kinds.query_evaluation import AsksQuery


class SearchEvaluation(AsksQuery, CatalogueEvaluation):
    """The best of the catalogue for a query."""


FACET = SearchEvaluation("query")
