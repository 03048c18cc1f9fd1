"""How a prediction of next_item is explained."""

from reshelve.kinds.catalogue_explanation import CatalogueExplanation

FACET = CatalogueExplanation()
