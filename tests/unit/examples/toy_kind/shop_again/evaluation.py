"""What is asked is the item's title."""

from reshelve.kinds.catalogue_evaluation import CatalogueEvaluation
from reshelve.kinds.query_evaluation import AsksQuery


class AgainEvaluation(AsksQuery, CatalogueEvaluation):
    """The best of the catalogue for a title."""


FACET = AgainEvaluation("seen")
